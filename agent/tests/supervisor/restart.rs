//! A restart ends the whole tree, frees its ports, and starts again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};

use devsync_agent::restart::supervise::Outcome;
use devsync_agent::sys::process_tree;

use crate::harness::{Run, deadline, python, status_field, wait_for, with_marker};

/// Listens, with a worker in its group and one in a session of its own; both inherit the socket, and the second ignores TERM.
const SERVER: &str = "
import os, signal, socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', int(sys.argv[1])))
listener.listen()
if os.fork() == 0:
    time.sleep(1000)
between = os.fork()
if between == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.waitpid(between, 0)
while True:
    peer, _ = listener.accept()
    peer.sendall(b'%d\\n' % os.getpid())
    peer.close()
";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn served_by(port: u16) -> Option<i32> {
    let mut line = String::new();
    BufReader::new(TcpStream::connect(("127.0.0.1", port)).ok()?).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

#[test]
fn a_hundred_restarts_leave_nothing_behind_and_the_port_is_bound_each_time() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("server.py");
    fs::write(&marker, SERVER).unwrap();
    let run = Run::start(&[], &[&python(), marker.to_str().unwrap(), &port.to_string()]);
    let mut serving = wait_for("the first answer", || served_by(port));
    for _ in 0..100 {
        let (old, new) = run.restart();
        assert_eq!(old, Some(serving));
        serving = wait_for("an answer", || served_by(port));
        assert_eq!(serving, new, "held: {}", run.read("err"));
    }
    // The first process, the worker, and the orphan in its own session; devsync-run names the marker too.
    let alive = wait_for("three processes", || Some(with_marker(&marker)).filter(|pids| pids.len() == 4));
    let below = process_tree::descendants(run.pid());
    assert_eq!(below.len(), 3, "{alive:?} {below:?}");
    for pid in below {
        assert!(!status_field(pid, "State").starts_with('Z'));
    }
    assert_eq!(run.supervisor().status().unwrap().restarts, 100);
    drop(run);
    wait_for("no process left", || with_marker(&marker).is_empty().then_some(()));
}

#[test]
fn an_app_and_a_grandchild_that_ignore_term_are_killed_after_grace() {
    let script = "trap '' TERM; setsid sh -c 'echo grandchild $$; sleep 1000; :' & echo up; while :; do sleep 1000; done";
    let run = Run::shell(&["--grace", "200ms"], script);
    run.line("out", "up");
    let grandchild: i32 = run.line("out", "grandchild ").parse().unwrap();
    let (old, new) = run.restart();
    assert!(old.is_some_and(|old| old != new));
    assert!(process_tree::parent(grandchild).is_err());
    assert!(process_tree::parent(old.unwrap()).is_err());
}

#[test]
fn a_server_behind_a_shell_has_its_grace_when_the_shell_is_already_gone() {
    let server = "trap 'for i in 1 2 3 4 5; do sleep 0.05; done; echo finished; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let run = Run::shell(&[], &format!("sh -c \"{server}\" & sleep 1000"));
    run.line("out", "up");
    run.restart();
    run.line("out", "finished");
    // Its server is there by now, and found when the test cleans up.
    run.line("out", "up");
}

#[test]
fn a_stopped_app_takes_its_term() {
    let run = Run::shell(&["--grace", "3600"], "echo up; kill -STOP $$");
    run.line("out", "up");
    let app = run.app();
    wait_for("the stop", || status_field(app, "State").starts_with('T').then_some(()));
    assert_eq!(run.restart().0, Some(app));
}

#[test]
fn restarts_asked_for_at_once_are_one_or_follow_each_other() {
    let run = Run::shell(&[], "echo up; sleep 1000");
    run.line("out", "up");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            // The new app of one may be the old one of the next, and be gone before it is looked at.
            scope.spawn(|| {
                let outcome = run.supervisor().restart(deadline()).unwrap();
                assert!(matches!(outcome, Outcome::Restarted { .. }), "{outcome:?}");
            });
        }
    });
    assert!(run.supervisor().status().unwrap().restarts <= 6);
    assert!(run.supervisor().app().unwrap().is_some());
}

#[test]
fn orphans_are_reaped_while_the_app_runs() {
    let run = Run::shell(&[], "for i in 1 2 3 4 5 6 7 8; do (sh -c : &); done; echo up; sleep 1000");
    run.line("out", "up");
    wait_for("only the app and its sleep", || {
        (process_tree::descendants(run.pid()).len() <= 2).then_some(())
    });
}
