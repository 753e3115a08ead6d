//! An HTTP service: `GET /add/X/Y` answers the sum, `GET /environment` where it runs. One thread per connection, nothing but std.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PORT: u16 = 8080;
const LONGEST_REQUEST: u64 = 8 * 1024;

fn main() {
    let listener = match TcpListener::bind(("0.0.0.0", PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("adder: cannot listen on port {PORT}: {error}");
            std::process::exit(1);
        }
    };
    println!("adder {VERSION}: pid {}, port {PORT}", std::process::id());
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    let limit = Some(Duration::from_secs(5));
    if stream.set_read_timeout(limit).is_err() || stream.set_write_timeout(limit).is_err() {
        return;
    }
    let Some(path) = read_path(&stream) else { return };
    let (status, text) = answer(&path);
    let length = text.len() + 1;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close"
    );
    // A client that has gone is nothing to report.
    let _ = stream.write_all(format!("{head}\r\n\r\n{text}\n").as_bytes());
}

/// Reads a request to the end of its headers, and gives its path if it is a GET.
fn read_path(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.take(LONGEST_REQUEST)).lines();
    let first = lines.next()?.ok()?;
    while lines.next()?.ok()? != "" {}
    let mut words = first.split(' ');
    (words.next() == Some("GET")).then_some(())?;
    words.next().map(str::to_string)
}

fn answer(path: &str) -> (&'static str, String) {
    let mut parts = path.trim_start_matches('/').split('/');
    if path == "/environment" {
        return ("200 OK", std::env::var("ENVIRONMENT").unwrap_or_else(|_| "none".to_string()));
    }
    if parts.next() != Some("add") {
        return ("404 Not Found", "try /add/2/3".to_string());
    }
    let number = |part: Option<&str>| part.and_then(|text| text.parse::<i64>().ok());
    match (number(parts.next()), number(parts.next()), parts.next()) {
        (Some(x), Some(y), None) => match x.checked_add(y) {
            Some(sum) => ("200 OK", format!("{x} + {y} = {sum}")),
            None => ("400 Bad Request", "the sum is too large".to_string()),
        },
        _ => ("400 Bad Request", "two whole numbers, please".to_string()),
    }
}
