//! What is not offered, or not to this key, is refused at once, and without an end of the connection where SSH has an
//! answer. There is no app here: programs are not run.

use std::io::Read;
use std::process::{Output, Stdio};

use crate::server::{Server, stderr};

fn run(server: &Server, arguments: &[&str]) -> Output {
    let mut command = server.client(&["id"]);
    command.args(arguments);
    let output = command.output().expect("ssh");
    // 124 is timeout's: a request that was left without an answer.
    assert_ne!(output.status.code(), Some(124), "{arguments:?} hangs: {}", stderr(&output));
    output
}

/// Its key may do nothing but sessions and programs.
fn restricted() -> Server {
    let server = Server::start();
    let key = std::fs::read_to_string(server.path("id.pub")).expect("a key");
    std::fs::write(server.path("keys"), format!("restrict {key}")).expect("written");
    server
}

#[test]
fn without_an_app_nothing_is_run() {
    let server = Server::start();
    for arguments in
        [&["127.0.0.1", "true"][..], &["127.0.0.1"], &["-tt", "127.0.0.1"], &["-tt", "127.0.0.1", "id"]]
    {
        let output = run(&server, arguments);
        assert_eq!(output.status.code(), Some(255), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(
            stderr(&output).contains("devsync-agent: process 4194304"),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn other_subsystems_are_refused() {
    let server = Server::start();
    for name in ["sftp2", "devsync2", "", "\u{1b}[31mred"] {
        let output = run(&server, &["-s", "127.0.0.1", name]);
        assert_eq!(output.status.code(), Some(255), "{name:?}: {}", stderr(&output));
    }
}

#[test]
fn forwards_are_refused_and_the_session_goes_on() {
    let server = restricted();
    let socket = format!("{}:127.0.0.1:9", server.path("remote.sock").display());
    let cases: [&[&str]; 5] = [
        &["-R", "0:127.0.0.1:9"],
        &["-R", &socket],
        &["-A"],
        &["-X"],
        &["-o", "SendEnv=*", "-o", "SetEnv=LD_PRELOAD=/x.so"],
    ];
    for options in cases {
        let output = server.subsystem(&["id"], options, b"still here");
        assert_eq!(output.stdout, b"still here", "{options:?}: {}", stderr(&output));
    }
    let output = server.subsystem(&["id"], &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"], b"x");
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("remote port forwarding failed"), "{}", stderr(&output));
}

#[test]
fn a_connection_through_the_server_is_refused() {
    let server = restricted();
    // -W asks for a direct-tcpip channel; the server itself would be reachable.
    let output = run(&server, &["-W", &server.address.to_string(), "127.0.0.1"]);
    assert_eq!(output.status.code(), Some(255));
    assert!(stderr(&output).contains("forwarding failed"), "{}", stderr(&output));
}

#[test]
fn a_local_forward_gives_no_bytes() {
    let server = restricted();
    let (entrance, target) = (server.path("forward.sock"), server.address);
    let mut command = server.client(&["id"]);
    command.arg("-L").arg(format!("{}:{target}", entrance.display()));
    command.args(["-s", "127.0.0.1", "devsync"]).stdin(Stdio::piped());
    let mut child = command.spawn().expect("ssh");
    // The client listens before it asks for the subsystem: an echo proves that it does.
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"x").expect("written");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("echo");
    let mut stream = std::os::unix::net::UnixStream::connect(&entrance).expect("the client listens");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("closed");
    assert!(bytes.is_empty());
    drop(stdin);
    assert!(child.wait().expect("ssh ends").success());
}
