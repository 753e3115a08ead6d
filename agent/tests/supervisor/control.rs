//! The control socket among strangers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use devsync_agent::supervisor::wire::{self, MAX_REPLY, Refusal, Reply, Request};
use devsync_agent::sys::abstract_socket;
use devsync_protocol::contract::RUN_SOCKET_PREFIX;

use crate::harness::{Run, deadline, python};

fn socket_name(run: &Run) -> String {
    let prefix = format!("{}{}", RUN_SOCKET_PREFIX, run.pid());
    let names = abstract_socket::listening(&prefix, 64).unwrap();
    let of_run = |name: &Vec<u8>| {
        abstract_socket::peer(&abstract_socket::connect(name).unwrap()).unwrap().pid == run.pid()
    };
    String::from_utf8(names.into_iter().find(of_run).unwrap()).unwrap()
}

fn connect(run: &Run) -> UnixStream {
    let stream = abstract_socket::connect(socket_name(run).as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn receive(stream: &mut UnixStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        if let Some((reply, _)) = wire::decode(&bytes, MAX_REPLY).unwrap() {
            return Some(reply);
        }
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
}

fn frame(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::encode(request, &mut frame).unwrap();
    frame
}

fn running() -> Run {
    let run = Run::shell(&[], "echo up; sleep 1000");
    run.line("out", "up");
    run
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let run = running();
    let silent: Vec<UnixStream> = (0..40).map(|_| connect(&run)).collect();
    let mut halves: Vec<UnixStream> = (0..20).map(|_| connect(&run)).collect();
    for half in &mut halves {
        // It may have been put out for a later one already.
        let _ = half.write_all(&[9, 0]);
    }
    run.restart();
    assert!(run.supervisor().status().is_ok());
    drop((silent, halves));
}

#[test]
fn nonsense_is_refused_and_costs_its_own_connection_only() {
    let run = running();
    let mut wrong_version = frame(&Request::Status);
    wrong_version[4] = 99;
    for (bytes, refusal) in [
        (vec![0xff; 4096], Refusal::Malformed),
        (vec![0, 0, 0, 0], Refusal::Malformed),
        (vec![2, 0, 0, 0, wire::VERSION, 77], Refusal::Malformed),
        (wrong_version, Refusal::Version(wire::VERSION)),
    ] {
        let mut stream = connect(&run);
        stream.write_all(&bytes).unwrap();
        assert_eq!(receive(&mut stream), Some(Reply::Refused(refusal)));
        assert_eq!(receive(&mut stream), None);
    }
    assert!(run.supervisor().status().is_ok());
}

#[test]
fn many_requests_on_one_connection_are_answered_in_order() {
    let run = running();
    let mut stream = connect(&run);
    let requests = [Request::Status, Request::Restart { settle_ms: 1 }, Request::Output, Request::Status];
    stream.write_all(&requests.iter().flat_map(frame).collect::<Vec<u8>>()).unwrap();
    assert!(matches!(receive(&mut stream), Some(Reply::Status(_))));
    assert!(matches!(receive(&mut stream), Some(Reply::Restarted { .. })));
    assert!(matches!(receive(&mut stream), Some(Reply::Output(_))));
    assert!(matches!(receive(&mut stream), Some(Reply::Status(status)) if status.restarts == 1));
}

#[test]
fn a_client_that_floods_and_never_reads_does_not_stop_restarts() {
    let run = running();
    let mut flood = connect(&run);
    flood.set_nonblocking(true).unwrap();
    let many: Vec<u8> = (0..2000).flat_map(|_| frame(&Request::Output)).collect();
    // Taken or not: the buffers on the way are finite.
    let _ = flood.write(&many);
    run.restart();
}

#[test]
fn a_taken_name_moves_the_supervisor_to_the_next_and_is_not_believed() {
    let run = running();
    // A stranger with the same kind of name that accepts nothing and answers nothing.
    let squatter = abstract_socket::bind(format!("{}{}.x", RUN_SOCKET_PREFIX, run.pid()).as_bytes()).unwrap();
    assert_eq!(run.supervisor().pid(), run.pid());
    drop(squatter);
}

#[test]
#[ignore = "needs: root"]
fn a_foreign_uid_is_refused() {
    let run = running();
    let script = format!(
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0{}')\n\
         try:\n    s.sendall(bytes({:?}))\nexcept OSError:\n    pass\n\
         while True:\n    b = s.recv(4096)\n    if not b: break\n    sys.stdout.buffer.write(b)",
        socket_name(&run),
        frame(&Request::Restart { settle_ms: 0 })
    );
    let before = run.supervisor().app().unwrap();
    // By python itself: another uid may not be able to reach the interpreter's file.
    let out = Command::new(python())
        .args(["-c", &format!("import os, socket, sys\nos.setgid(65534)\nos.setuid(65534)\n{script}")])
        .output()
        .unwrap();
    let decoded = wire::decode::<Reply>(&out.stdout, MAX_REPLY);
    assert_eq!(
        decoded.unwrap().map(|(reply, _)| reply),
        Some(Reply::Refused(Refusal::Uid)),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(run.supervisor().app().unwrap(), before);
    assert!(run.supervisor().restart(deadline()).is_ok());
}
