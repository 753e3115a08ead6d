// An HTTP service: GET /add/X/Y answers the sum. Run as: node dist/server.js
"use strict";
const http = require("node:http");

const server = http.createServer((request, response) => {
  const numbers = request.url.match(/^\/add\/(-?\d+)\/(-?\d+)$/);
  response.setHeader("Content-Type", "text/plain");
  if (!numbers) {
    response.statusCode = 404;
    response.end("GET /add/X/Y, please\n");
    return;
  }
  const [x, y] = numbers.slice(1).map(Number);
  response.end(`${x} + ${y} = ${x + y}\n`);
});

server.listen(8080, "0.0.0.0");
process.on("SIGTERM", () => process.exit(0));
