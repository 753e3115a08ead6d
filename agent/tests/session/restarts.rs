//! Restarts that a session asks for: in place, refused, superseded, and under devsync-run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use devsync_agent::sys::signals;
use devsync_protocol::message::{Op, Reply, Request};
use devsync_protocol::restart::{AppState, RestartMode};
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

use crate::harness::{Run, python, wait_for};
use crate::laptop::{file_op, path};
use crate::peer::{AGENT, Peer};
use crate::world::DEFAULT_CAPS;

/// A program on the machine itself, in a directory of its own.
struct App {
    child: Child,
    dir: TempDir,
    state: TempDir,
}

impl App {
    fn start(argv: &[&str], furnish: impl FnOnce(&TempDir)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        furnish(&dir);
        let program = argv[0].replace("DIR", &dir.path().display().to_string());
        let mut command = Command::new(program);
        command.args(&argv[1..]).current_dir(dir.path()).stdin(Stdio::null());
        let log = File::create(dir.path().join("log")).expect("create");
        let child = command.stderr(log.try_clone().expect("dup")).stdout(log).spawn().expect("the app");
        Self { child, dir, state: tempfile::tempdir().expect("a directory") }
    }

    fn peer(&self) -> Peer {
        let mut peer = Peer::start(self.child.id(), self.state.path());
        peer.open(self.dir.path().to_str().expect("UTF-8"));
        peer
    }

    /// Clock ticks after boot: changes with the process, not with what it executes.
    fn start_time(&self) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).expect("field 22").to_owned()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn restart(seq: u32, after: Option<u32>, mode: RestartMode) -> Request {
    Request::Restart { seq, after, mode, grace_ms: 5000 }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    listener.local_addr().expect("address").port()
}

/// Serves its own file's answer; silent for ever where a file `quiet` lies beside it.
fn server(port: u16, answer: &str) -> Vec<u8> {
    format!(
        "import os, socket, time\n\
         while os.path.exists('quiet'): time.sleep(0.01)\n\
         s = socket.socket()\n\
         s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
         s.bind(('127.0.0.1', {port}))\n\
         s.listen()\n\
         while True:\n    c, _ = s.accept()\n    c.sendall(b'{answer}')\n    c.close()\n"
    )
    .into_bytes()
}

fn answer(port: u16) -> String {
    wait_for("an answer", || {
        let mut text = String::new();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?.read_to_string(&mut text).ok()?;
        Some(text).filter(|text| !text.is_empty())
    })
}

fn python_app(port: u16) -> App {
    let app = App::start(&[&python(), "server.py"], |dir| {
        fs::write(dir.path().join("server.py"), server(port, "one")).expect("write");
    });
    assert_eq!(answer(port), "one");
    app
}

#[test]
#[ignore = "needs: root"]
fn a_server_is_restarted_in_place_behind_its_batch_and_its_port_comes_back() {
    let port = free_port();
    let app = python_app(port);
    let mut peer = app.peer();
    assert_eq!(peer.auto.mode, RestartMode::Reexec, "{:?}", peer.auto);
    let before = app.start_time();
    let begin = peer.begin();
    let op = Request::Op { root: 0, op: file_op("server.py", 0o644, &server(port, "two")) };
    let requests = [begin, op, peer.commit_request(), restart(1, Some(1), RestartMode::Auto)];
    peer.send(&requests);
    assert!(peer.committed().applied);
    let Some(Reply::Restarted { seq: 1, report }) = peer.next() else { panic!("not restarted") };
    assert_eq!(report.mode, RestartMode::Reexec);
    assert!(report.same_pid() && report.new_pid == app.child.id());
    let Some(Reply::Ready { seq: 1, report }) = peer.next() else { panic!("not ready") };
    assert_eq!((&report.ports[..], &report.missing[..]), (&[port][..], &[][..]));
    assert_eq!(answer(port), "two");
    assert_eq!(app.start_time(), before);
    assert!(peer.close().success());
}

#[test]
#[ignore = "needs: root"]
fn a_restart_that_does_not_get_ready_gives_way_to_the_next() {
    let port = free_port();
    let app = python_app(port);
    let mut peer = app.peer();
    fs::write(app.dir.path().join("quiet"), "").expect("write");
    let Reply::Restarted { seq: 1, .. } = peer.ask(restart(1, None, RestartMode::Reexec)) else {
        panic!("not restarted")
    };
    fs::remove_file(app.dir.path().join("quiet")).expect("remove");
    // Held up by the first's readiness or not, the second is told its own, with the port of before.
    fs::write(app.dir.path().join("server.py"), server(port, "two")).expect("write");
    peer.send(&[restart(2, None, RestartMode::Reexec)]);
    loop {
        match peer.next() {
            Some(Reply::Ready { seq: 1, .. } | Reply::Restarted { seq: 2, .. }) => {}
            Some(Reply::Ready { seq: 2, report }) => {
                assert_eq!(report.ports, [port]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answer(port), "two");
}

#[test]
#[ignore = "needs: root"]
fn of_quick_restarts_the_last_is_answered() {
    let port = free_port();
    let app = python_app(port);
    let mut peer = app.peer();
    let all: Vec<_> = (1..=5).map(|seq| restart(seq, None, RestartMode::Reexec)).collect();
    peer.send(&all);
    let mut answered = Vec::new();
    while answered.last() != Some(&5) {
        match peer.next() {
            Some(Reply::Restarted { seq, .. } | Reply::RestartFailed { seq, .. }) => answered.push(seq),
            Some(Reply::Ready { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(answered.is_sorted() && answered.len() < 5, "{answered:?}");
    assert!(matches!(peer.next(), Some(Reply::Ready { seq: 5, .. })));
    assert_eq!(answer(port), "one");
}

#[test]
#[ignore = "needs: root"]
fn a_bad_executable_leaves_the_old_process_and_so_does_a_failed_batch() {
    let app = App::start(&["DIR/app", "1000"], |dir| {
        fs::copy("/usr/bin/sleep", dir.path().join("app")).expect("copy");
        fs::set_permissions(dir.path().join("app"), fs::Permissions::from_mode(0o755)).expect("chmod");
    });
    let mut peer = app.peer();
    let begin = peer.begin();
    let bad = Request::Op { root: 0, op: file_op("app", 0o755, b"\x7fELF and nothing more") };
    let requests = [begin, bad, peer.commit_request(), restart(1, Some(1), RestartMode::Reexec)];
    peer.send(&requests);
    assert!(peer.committed().applied);
    let Some(Reply::RestartFailed { seq: 1, failure }) = peer.next() else { panic!("restarted") };
    assert_eq!(failure.app, AppState::Untouched, "{failure:?}");
    let comm = || fs::read_to_string(format!("/proc/{}/comm", app.child.id())).expect("alive");
    assert_eq!(comm(), "app\n");
    let begin = peer.begin();
    let mut wrong = file_op("x", 0o644, b"x");
    if let Op::File { digest, .. } = &mut wrong {
        digest.0[0] ^= 1;
    }
    let op = Request::Op { root: 0, op: wrong };
    let requests = [begin, op, peer.commit_request(), restart(2, Some(2), RestartMode::Reexec)];
    peer.send(&requests);
    assert!(!peer.committed().applied);
    let Some(Reply::RestartFailed { seq: 2, failure }) = peer.next() else { panic!("restarted") };
    assert!(failure.cause.contains("not applied") && failure.app == AppState::Untouched, "{failure:?}");
    assert!(!app.dir.path().join("x").exists());
}

#[test]
#[ignore = "needs: root"]
fn a_batch_that_was_applied_in_part_restarts_nothing() {
    let app = App::start(&["/usr/bin/sleep", "1000"], |_| {});
    let mut peer = app.peer();
    // A link whose directory is not there: seen when the others are in place already.
    let begin = peer.begin();
    let op =
        Request::Op { root: 0, op: Op::Symlink { path: path("missing/dir/link"), target: b"t".to_vec() } };
    let requests = [begin, op, peer.commit_request(), restart(1, Some(1), RestartMode::Reexec)];
    peer.send(&requests);
    let committed = peer.committed();
    assert!(committed.applied && !committed.problems.is_empty(), "{committed:?}");
    assert!(matches!(peer.next(), Some(Reply::RestartFailed { seq: 1, .. })));
}

#[test]
#[ignore = "needs: root"]
fn under_devsync_run_a_restart_is_a_new_process_and_a_crash_is_told_with_its_output() {
    let run = Run::shell(&[], "cd \"$DIR\"; echo started in $DIR; . ./script");
    fs::write(run.path("script"), "exec sleep 1000\n").expect("write");
    // The first run may have found no script: then it is held, and is started again.
    let app = wait_for("an app", || {
        let supervisor = run.supervisor();
        let app = supervisor.app().ok()?;
        if app.is_none() {
            let _ = supervisor.restart(crate::harness::deadline());
        }
        app.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n"))
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(app as u32, state.path());
    assert_eq!(peer.auto.mode, RestartMode::Supervise, "{:?}", peer.auto);
    peer.open(run.dir.path().to_str().expect("UTF-8"));
    let Reply::Restarted { seq: 1, report } = peer.ask(restart(1, None, RestartMode::Auto)) else {
        panic!("not restarted")
    };
    assert_eq!((report.mode.clone(), report.old_pid), (RestartMode::Supervise, app as u32));
    assert!(!report.same_pid());
    assert!(matches!(peer.next(), Some(Reply::Ready { seq: 1, .. })));
    // It has no port to wait for: it has said its words when it is the program that it becomes.
    wait_for("the new app", || {
        let comm = fs::read_to_string(format!("/proc/{}/comm", report.new_pid));
        comm.is_ok_and(|comm| comm == "sleep\n").then_some(())
    });
    signals::send(report.new_pid as i32, libc::SIGSEGV).expect("kill");
    let Some(Reply::Crashed { cause, output }) = peer.next() else { panic!("not told") };
    assert!(cause.contains("SIGSEGV") || cause.contains("signal"), "{cause}");
    assert!(String::from_utf8_lossy(&output).contains("started in"), "{output:?}");
    let committed = peer.batch(vec![file_op("script", 0o644, b"echo again; exec sleep 999\n")]);
    assert!(committed.applied);
    let Reply::Restarted { seq: 2, report } = peer.ask(restart(2, Some(1), RestartMode::Auto)) else {
        panic!("not restarted")
    };
    assert!(std::path::Path::new(&format!("/proc/{}", report.new_pid)).exists());
    // Seen again when it crashes again.
    assert!(matches!(peer.next(), Some(Reply::Ready { seq: 2, .. })));
    signals::send(report.new_pid as i32, libc::SIGKILL).expect("kill");
    assert!(matches!(peer.next(), Some(Reply::Crashed { .. })));
}

#[test]
#[ignore = "needs: root"]
fn without_ptrace_auto_restarts_nothing_and_the_welcome_says_why() {
    let app = App::start(&["/usr/bin/sleep", "1000"], |_| {});
    // The filter is the thread's, and of what it starts.
    let (pid, state) = (app.child.id(), app.state.path().to_owned());
    let peer = std::thread::spawn(move || {
        let rules = BTreeMap::from([(libc::SYS_ptrace, Vec::new())]);
        let refuse = SeccompAction::Errno(Errno::EPERM as i32 as u32);
        let arch = std::env::consts::ARCH.try_into().expect("an architecture");
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
        let program: BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&program).expect("seccomp");
        Peer::start(pid, &state)
    });
    let mut peer = peer.join().expect("a session");
    assert_eq!(peer.auto.mode, RestartMode::None);
    assert!(peer.auto.why.contains("seccomp"), "{:?}", peer.auto);
    assert!(peer.auto.hint.as_ref().is_some_and(|hint| hint.contains("devsync-run")));
    assert!(!peer.report.ptrace.is_permitted());
    peer.open(app.dir.path().to_str().expect("UTF-8"));
    assert!(peer.batch(vec![file_op("a", 0o644, b"a")]).applied);
    let reply = peer.ask(restart(1, None, RestartMode::Auto));
    assert!(matches!(reply, Reply::Restarted { seq: 1, report } if report.mode == RestartMode::None));
}

#[test]
#[ignore = "needs: root"]
fn root_with_default_capabilities_knows_when_another_user_s_app_is_ready() {
    let port = free_port();
    let script = String::from_utf8(server(port, "hello")).expect("text");
    let app = App::start(
        &["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "/usr/bin/python3", "-c", &script],
        |dir| fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod"),
    );
    wait_for("the app", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    let mut agent = Command::new("setpriv");
    agent.args([DEFAULT_CAPS, "--inh-caps=-all", AGENT]);
    let mut peer = Peer::command(agent, "ann", app.child.id(), app.state.path());
    let reply = peer.ask(restart(1, None, RestartMode::Reexec));
    assert!(matches!(reply, Reply::Restarted { seq: 1, .. }), "{reply:?}");
    let Some(Reply::Ready { seq: 1, report }) = peer.next() else { panic!("not ready") };
    assert_eq!((report.ports, report.missing), (vec![port], vec![]));
}
