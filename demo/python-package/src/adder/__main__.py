"""An HTTP service: GET /add/X/Y answers the sum. Run as: python -m adder"""

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from adder import answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        numbers = re.fullmatch(r"/add/(-?\d+)/(-?\d+)", self.path)
        text = answer(*map(int, numbers.groups())) if numbers else "GET /add/X/Y, please\n"
        self.send_response(200 if numbers else 404)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
