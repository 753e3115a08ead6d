//! Restarts that cannot work, and tracers that die: the old process serves on, exactly as it was.

mod reexec_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use devsync_agent::restart::reexec::Style;
use devsync_protocol::restart::{AppState, RefusalKind, RestartFailure};
use reexec_support::*;

/// Restarts a server whose executable was replaced, and holds what is left of it against what was there.
fn refused(style: Style, replace: impl FnOnce(&Path)) -> RestartFailure {
    let (directory, mut app, port) = server(4);
    assert_eq!(ask_soon(port).0, "old");
    let before = picture(app.pid);
    let restart = app.restart(style);
    let exe = directory.path().join("server");
    fs::remove_file(&exe).expect("removes");
    replace(&exe);
    let failure = launcher(&[]).restart(app.pid, start_time(app.pid), restart).expect_err("is refused");
    assert_eq!(failure.app, AppState::Untouched, "{failure:?}");
    assert!(app.runs());
    assert_eq!(picture(app.pid), before);
    assert_eq!(ask_soon(port).0, "old");
    assert!("SR".contains(state(app.pid)));
    assert!(failure.what.contains("server"), "{failure:?}");
    println!("{}: {}\n  hint: {}", failure.what, failure.cause, failure.hint);
    failure
}

fn write_executable(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("writes");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("sets the mode");
}

#[test]
fn a_missing_executable_is_refused() {
    assert!(refused(GRACEFUL, |_| ()).cause.contains("does not exist"));
}

#[test]
fn a_directory_is_refused() {
    assert!(refused(GRACEFUL, |exe| fs::create_dir(exe).expect("makes it")).cause.contains("directory"));
}

#[test]
fn an_empty_file_is_refused() {
    assert!(refused(GRACEFUL, |exe| write_executable(exe, b"")).cause.contains("empty"));
}

#[test]
fn what_is_no_program_is_refused() {
    assert!(
        refused(GRACEFUL, |exe| write_executable(exe, b"hello world\n")).cause.contains("neither an ELF")
    );
}

#[test]
fn a_program_without_the_x_bit_is_refused() {
    let replace = |exe: &Path| {
        fs::copy("/bin/true", exe).expect("copies");
        fs::set_permissions(exe, fs::Permissions::from_mode(0o644)).expect("sets the mode");
    };
    assert!(refused(GRACEFUL, replace).cause.contains("0644"));
}

#[test]
fn a_cut_off_program_is_refused() {
    let whole = fs::read("/bin/true").expect("reads");
    let cause = refused(GRACEFUL, |exe| write_executable(exe, &whole[..whole.len() / 2])).cause;
    assert!(cause.contains("cut off"), "{cause}");
}

#[test]
fn a_program_without_its_interpreter_is_refused() {
    let failure = refused(GRACEFUL, |exe| write_executable(exe, b"#!/no/such/interpreter\n"));
    assert!(failure.cause.contains("/no/such/interpreter"), "{failure:?}");
}

#[test]
fn a_program_that_is_being_written_is_refused() {
    let mut writer = None;
    let failure = refused(GRACEFUL, |exe| {
        fs::copy("/bin/true", exe).expect("copies");
        writer = Some(fs::File::options().append(true).open(exe).expect("opens"));
    });
    assert!(failure.cause.contains("open for writing"), "{failure:?}");
}

/// Ignored and blocked signals, descriptors with and without close-on-exec, a umask and a directory that are not
/// those of its start: everything that a re-exec changes before execve can still fail.
const PARTICULAR: &str = r#"
import os, signal, socket, sys, threading, time
signal.signal(signal.SIGHUP, signal.SIG_IGN); signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
for fd in kept[::2]: os.set_inheritable(fd, True)
for _ in range(6): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print("START", os.getpid(), flush=True)
n = 0
while True:
    time.sleep(0.002); n += 1
    if n % 50 == 0: print("BEAT", flush=True)
"#;

/// execve fails at last, because the arguments are more than it takes: nothing could have known.
#[test]
fn a_failed_execve_is_undone() {
    let mut app = python(PARTICULAR, &[]);
    app.line("START");
    let before = picture(app.pid);
    let mut restart = app.restart(GRACEFUL);
    restart.recorded.cwd = "/".into();
    restart.recorded.umask = 0o077;
    restart.recorded.argv.push("x".repeat(200_000).into());
    for round in 0..20 {
        let failure = launcher(&[])
            .restart(app.pid, start_time(app.pid), restart.clone())
            .expect_err("is more than execve takes");
        assert_eq!(failure.app, AppState::Untouched);
        assert!(failure.cause.contains("refused to execute"), "{failure:?}");
        assert_eq!(picture(app.pid), before, "round {round}");
    }
    app.line("BEAT");
    assert!(app.runs());
    app.restart(GRACEFUL);
}

#[test]
fn a_program_that_shut_down_already_is_started_again_from_its_old_file() {
    let code = "import os,signal,sys,time\nsignal.signal(15, lambda *a: (print('HANDLER', flush=True), sys.exit(0)))\nprint('START', os.getpid(), len(sys.argv[1]) if len(sys.argv) > 1 else 0, flush=True)\nwhile True: time.sleep(0.01)";
    let directory = tempfile::tempdir().expect("makes a directory");
    // The interpreter's file vanishes while the handler runs: a race that no check can close.
    let exe = directory.path().join("python3");
    let real =
        Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().expect("runs");
    let real = fs::canonicalize(String::from_utf8_lossy(&real.stdout).trim()).expect("exists");
    fs::copy(&real, &exe).expect("copies");
    let home = Command::new("python3").args(["-c", "import sys; print(sys.prefix)"]).output().expect("runs");
    let home = String::from_utf8_lossy(&home.stdout).trim().to_owned();
    let code =
        code.replace("print('HANDLER', flush=True)", "print('HANDLER', flush=True), os.unlink(sys.argv[1])");
    let mut app =
        App::start(Command::new(&exe).args(["-c", &code, &exe.to_string_lossy()]).env("PYTHONHOME", home));
    app.line("START");
    let failure = launcher(&[])
        .restart(app.pid, start_time(app.pid), app.restart(GRACEFUL))
        .expect_err("cannot execute what is gone");
    app.line("HANDLER");
    assert_eq!(failure.app, AppState::OldStartedAgain, "{failure:?}");
    app.line("START");
    assert!(app.runs());
}

/// What a restart from a title would have started is not what the app was.
fn refused_for_its_title(mut app: App, title: &str) {
    app.line("START");
    let start = start_time(app.pid);
    let refusal = launcher(&[]).permitted(app.pid, start).expect_err("has a title");
    assert_eq!(refusal.kind, RefusalKind::Retitled, "{refusal:?}");
    assert!(refusal.cause.contains(title) && refusal.hint.contains("devsync-run"), "{refusal:?}");
    let failure = launcher(&[]).restart(app.pid, start, app.restart(GRACEFUL)).expect_err("has a title");
    assert_eq!((failure.app, failure.cause), (AppState::Untouched, refusal.cause));
    assert!(app.runs());
}

/// Writes a title over the memory of its own arguments, as setproctitle does: the fill after it up to their end.
const RETITLED: &str = r#"
import signal, sys
fields = open("/proc/self/stat").read().rsplit(")", 1)[1].split()
start, end = int(fields[45]), int(fields[46])
title, fill = sys.argv[1].encode(), sys.argv[2].encode() or b"\0"
with open("/proc/self/mem", "r+b", 0) as memory:
    memory.seek(start)
    memory.write(title + fill * (end - start - len(title)) if sys.argv[3] == "pad" else title * 99)
print("START", flush=True)
signal.pause()
"#;

#[test]
fn a_title_over_the_arguments_is_not_executed() {
    for fill in ["", " "] {
        refused_for_its_title(python(RETITLED, &["app: master process", fill, "pad"]), "app: master process");
    }
}

#[test]
fn a_title_into_the_environment_is_not_executed() {
    refused_for_its_title(python(RETITLED, &["app: master process ", "", "long"]), "into its environment");
}

#[test]
fn the_title_that_perl_sets_is_not_executed() {
    let code = "$0 = 'nginx: master process'; $| = 1; print \"START\\n\"; sleep 1000";
    refused_for_its_title(App::start(Command::new("perl").args(["-e", code])), "nginx: master process");
}

#[test]
fn arguments_that_look_like_a_title_are_executed() {
    let code = "import signal; print('START', flush=True); signal.pause()";
    let mut app = python(code, &["app: master process", "", ""]);
    app.line("START");
    let start = start_time(app.pid);
    launcher(&[]).permitted(app.pid, start).expect("is permitted");
    launcher(&[]).restart(app.pid, start, app.restart(GRACEFUL)).expect("restarts");
    app.line("START");
    assert!(app.runs());
}

/// It handles SIGTERM and then cannot be held: nobody may say that it serves on.
#[test]
fn a_program_that_was_told_to_end_is_not_called_untouched() {
    let directory = tempfile::tempdir().expect("makes a directory");
    let exe = directory.path().join("vforker");
    compile_program("vforker.rs", &exe, "1");
    let mut app = App::start(&mut Command::new(&exe));
    app.line("START");
    let restart = app.restart(Style::Graceful { grace: Duration::from_millis(100) });
    let failure = launcher(&[]).restart(app.pid, start_time(app.pid), restart).expect_err("cannot be held");
    assert!(failure.cause.contains("did not stop"), "{failure:?}");
    assert_eq!(failure.app, AppState::Unknown);
    assert!(app.runs());
}

/// Ends the helper, and the one that follows it, at each of its ptrace calls.
fn killed_at_every_step(style: Style, step: usize) {
    let directory = tempfile::tempdir().expect("makes a directory");
    let killer = directory.path().join("killer");
    compile_program("killer.rs", &killer, "1");
    let (_program, mut app, port) = server(3);
    let start = start_time(app.pid);
    // Once before, so that what the test itself was started with is gone.
    launcher(&[]).restart(app.pid, start, app.restart(style)).expect("restarts");
    ask_soon(port_of(&app, port));
    for number in (1..).step_by(step) {
        let restart = app.restart(style);
        let number = number.to_string();
        let result = launcher(&[&killer.to_string_lossy(), &number]).restart(app.pid, start, restart);
        assert!(app.runs(), "ended at call {number}");
        soon(|| "SR".contains(state(app.pid)).then_some(()))
            .unwrap_or_else(|| panic!("stuck at call {number}"));
        let settled = soon(|| {
            let status = status(app.pid);
            (status["TracerPid"] == "0" && status["SigBlk"] == "0000000000000000").then_some(())
        });
        settled.unwrap_or_else(|| panic!("not let go, or blocked, at call {number}"));
        let port = port_of(&app, 0);
        assert_eq!(ask_soon(port).1, app.pid, "at call {number}");
        assert_eq!(ask_soon(port).2, 6, "descriptors at call {number}");
        if matches!(&result, Ok(done) if done.tracer_micros > 0) {
            println!("the work is done in fewer than {number} calls");
            return;
        }
    }
}

/// The port that a process listens on, which is another one after each start with port 0.
fn port_of(app: &App, _former: u16) -> u16 {
    let port = || devsync_agent::restart::ready::Listening::of(app.pid).ok()?.ports().next();
    soon(port).expect("listens")
}

#[test]
fn a_tracer_killed_at_any_step_leaves_the_old_program_or_the_new_one() {
    killed_at_every_step(Style::Forced, 1);
}

#[test]
fn a_graceful_tracer_killed_during_the_shutdown_is_followed_by_another() {
    let code = "import os,signal,sys,time\ndef h(*a):\n  print('HANDLER', os.getpid(), flush=True); time.sleep(1); sys.exit(0)\nsignal.signal(15, h)\nprint('START', os.getpid(), flush=True)\nwhile True: time.sleep(0.01)";
    let mut app = python(code, &[]);
    let first = app.line("START");
    let pid = app.pid;
    let restart = app.restart(GRACEFUL);
    let start = start_time(pid);
    let work = std::thread::spawn(move || launcher(&[]).restart(pid, start, restart));
    app.line("HANDLER");
    let tracer: i32 = status(pid)["TracerPid"].parse().expect("is a number");
    assert_ne!(tracer, 0);
    devsync_agent::restart::signal::send(tracer, start_time(tracer), &"KILL".parse().expect("is a name"))
        .expect("kills the helper");
    work.join().expect("ends").expect("restarts all the same");
    assert_eq!(app.line("START"), first);
    assert!(app.runs());
}
