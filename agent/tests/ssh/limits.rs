//! What a stranger can cost, and how the server ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use devsync_agent::ssh::Limits;

use crate::server::{Server, echo, stderr};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("deadline");
    stream
}

/// Reads to the end; an end by reset counts, a deadline does not.
fn ends(mut stream: &TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_fourth_key_is_not_looked_at() {
    let server = Server::start();
    for name in ["a", "b", "c"] {
        server.keygen(name, "ed25519");
    }
    let output = server.subsystem(&["a", "b", "id"], &[], b"x");
    assert_eq!(output.stdout, b"x", "{}", stderr(&output));
    let output = server.subsystem(&["a", "b", "c", "id"], &[], b"x");
    assert_eq!(output.status.code(), Some(255));
    let log = stderr(&output);
    assert!(log.contains("Too many authentication") || log.contains("Permission denied"), "{log}");
}

#[test]
fn a_silent_connection_is_closed_after_the_grace_time() {
    let limits = Limits { login_grace: Duration::from_millis(200), ..Limits::default() };
    let server = Server::with(limits, Arc::new(|_, _, _| {}));
    let silent = connect(&server);
    let mut greeted = connect(&server);
    greeted.write_all(b"SSH-2.0-idle\r\n").expect("written");
    assert!(ends(&silent));
    assert!(ends(&greeted));
}

#[test]
fn silent_connections_do_not_keep_a_client_out() {
    let server = Server::start();
    let silent: Vec<TcpStream> = (0..400).map(|_| connect(&server)).collect();
    assert!(server.logs_in("id"));
    // The oldest have made place.
    assert!(ends(&silent[0]));
    drop(silent);
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let server = Server::start();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
        &[0; 4096],
    ] {
        let mut stream = connect(&server);
        // It may be closed before all is written.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        assert!(ends(&stream));
    }
    assert!(server.logs_in("id"));
}

#[test]
fn more_connections_than_the_limit_are_refused() {
    let limits = Limits { sessions: 1, ..Limits::default() };
    let server = Server::with(limits, Arc::new(|reader, writer, _| echo(reader, writer)));
    let mut command = server.client(&["id"]);
    command.args(["-s", "127.0.0.1", "devsync"]).stdin(Stdio::piped());
    let mut first = command.spawn().expect("ssh");
    first.stdin.as_mut().expect("piped").write_all(b"x").expect("written");
    first.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("echo");
    assert!(!server.logs_in("id"));
    drop(first.stdin.take());
    assert!(first.wait().expect("ssh ends").success());
}

#[test]
fn a_client_that_vanishes_ends_its_session() {
    let (started, begin) = mpsc::channel();
    let server = Server::with(
        Limits::default(),
        Arc::new(move |reader, writer, _| {
            started.send(()).expect("the test waits");
            echo(reader, writer);
        }),
    );
    let mut command = server.client(&["id"]);
    command.args(["-s", "127.0.0.1", "devsync"]).stdin(Stdio::piped());
    // Without `timeout` in between, so that the client itself is killed.
    let mut direct = std::process::Command::new("ssh");
    direct.args(command.get_args().skip(4)).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = direct.spawn().expect("ssh");
    begin.recv_timeout(DEADLINE).expect("a session");
    client.kill().expect("killed");
    client.wait().expect("reaped");
    let mut server = server;
    server.stop();
    assert_eq!(server.ended.load(Ordering::SeqCst), 1);
}

#[test]
fn shutdown_lets_a_session_finish_its_answer() {
    let (started, begin) = mpsc::channel();
    let mut server = Server::with(
        Limits::default(),
        Arc::new(move |mut reader, mut writer, _| {
            started.send(()).expect("the test waits");
            let mut input = Vec::new();
            reader.read_to_end(&mut input).expect("the end of input");
            writer.write_all(b"farewell").expect("written");
        }),
    );
    let mut command = server.client(&["id"]);
    command.args(["-s", "127.0.0.1", "devsync"]).stdin(Stdio::piped());
    let mut client = command.spawn().expect("ssh");
    let stdin = client.stdin.take();
    begin.recv_timeout(DEADLINE).expect("a session");
    server.stop();
    assert_eq!(server.ended.load(Ordering::SeqCst), 1);
    drop(stdin);
    let output = client.wait_with_output().expect("ssh ends");
    assert_eq!(output.stdout, b"farewell", "{}", stderr(&output));
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let limits = Limits { drain: Duration::from_millis(200), ..Limits::default() };
    let (started, begin) = mpsc::channel();
    let mut server = Server::with(
        limits,
        Arc::new(move |_reader, mut writer, _| {
            let mut told = false;
            while writer.write_all(&[0; 65_536]).is_ok() {
                if !std::mem::replace(&mut told, true) {
                    started.send(()).expect("the test waits");
                }
            }
        }),
    );
    let mut command = server.client(&["id"]);
    command.args(["-s", "127.0.0.1", "devsync"]).stdin(Stdio::piped());
    let mut client = command.spawn().expect("ssh");
    begin.recv_timeout(DEADLINE).expect("a session");
    server.stop();
    assert_eq!(server.ended.load(Ordering::SeqCst), 1);
    let output = client.stdout.take();
    drop((client.stdin.take(), output));
    client.wait().expect("ssh ends");
}
