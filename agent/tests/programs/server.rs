//! A server for the restart tests, std only. `server THREADS PORT`: answers every connection with its version, its
//! PID and its open descriptors; `PORT` 0 is none. The version is compiled in.

use std::io::Write;
use std::net::TcpListener;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let port: u16 = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    for _ in 1..threads {
        std::thread::spawn(|| loop {
            std::thread::park();
        });
    }
    // Busy in user code, beside the ones that sleep.
    if threads > 2 {
        std::thread::spawn(|| loop {
            std::hint::black_box(std::time::Instant::now());
            std::thread::sleep(std::time::Duration::from_micros(50));
        });
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("binds");
    println!("START {} {} {}", option_env!("VERSION").unwrap_or("1"), std::process::id(), listener.local_addr().unwrap().port());
    for connection in listener.incoming() {
        let fds = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let version = option_env!("VERSION").unwrap_or("1");
        let answer = format!("{version} {} {fds}\n", std::process::id());
        let _ = connection.and_then(|mut stream| stream.write_all(answer.as_bytes()));
    }
}
