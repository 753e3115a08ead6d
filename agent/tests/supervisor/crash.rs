//! Crash-hold, failed starts, and the status that devsync-run ends with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use devsync_agent::restart::supervise::Outcome;
use devsync_agent::supervisor::wire::{Cause, Held, State};

use crate::harness::{Run, deadline, wait_for};

fn held(run: &Run) -> Held {
    wait_for("held", || match run.supervisor().status().unwrap().state {
        State::Held(held) => Some(held),
        _ => None,
    })
}

/// Crashes as told until `$DIR/good` is there.
fn crashing(how: &str) -> Run {
    Run::shell(
        &[],
        &format!("echo last words; if [ -e $DIR/good ]; then echo serving; sleep 1000; fi; {how}"),
    )
}

#[test]
fn a_crash_is_held_with_its_output_and_the_next_restart_serves() {
    let segv = Cause::Signalled { signal: libc::SIGSEGV, core: false };
    for (how, cause) in [("exit 1", Cause::Exited { code: 1 }), ("ulimit -c 0; kill -SEGV $$", segv)] {
        let run = crashing(how);
        let first = held(&run);
        assert_eq!((first.cause.clone(), &first.output[..]), (cause, &b"last words\n"[..]));
        let again = run.supervisor().restart_and_settle(Duration::from_secs(30), deadline()).unwrap();
        assert!(matches!(again, Outcome::Held { old: None, held } if held.cause == first.cause));
        fs::write(run.path("good"), "").unwrap();
        let (old, new) = run.restart();
        assert_eq!((old, Some(new)), (None, run.supervisor().app().unwrap()));
        run.line("out", "serving");
        assert!(run.line("err", "devsync-run: ").ends_with("held until the next restart"));
    }
}

#[test]
fn what_a_crash_leaves_behind_is_ended_before_it_is_held() {
    let run = Run::shell(&[], "setsid sh -c 'trap \"\" TERM; sleep 1000; :' & exit 4");
    assert_eq!(held(&run).cause, Cause::Exited { code: 4 });
    assert!(devsync_agent::sys::process_tree::descendants(run.pid()).is_empty());
}

fn errno(run: &Run) -> i32 {
    match held(run).cause {
        Cause::NotStarted { errno, .. } => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_that_cannot_be_started_is_held_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("app");
    let run = Run::start(&[], &[program.to_str().unwrap()]);
    assert_eq!(errno(&run), libc::ENOENT);

    write(&program, "#!/bin/sh\necho fixed; exec sleep 1000\n", 0o644);
    assert_eq!(refused(&run), libc::EACCES);
    write(&program, "\x7fELF is not all it takes", 0o755);
    assert_eq!(refused(&run), libc::ENOEXEC);
    write(&program, "#!/nowhere/sh\n", 0o755);
    assert_eq!(refused(&run), libc::ENOENT);
    assert!(run.read("err").contains("its interpreter"));
    write(&program, "#!/bin/sh\necho fixed; exec sleep 1000\n", 0o755);
    run.restart();
    run.line("out", "fixed");
}

fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

fn refused(run: &Run) -> i32 {
    let outcome = run.supervisor().restart(deadline()).unwrap();
    assert!(matches!(outcome, Outcome::Held { .. }), "{outcome:?}");
    errno(run)
}

#[test]
fn exit_0_ends_with_0_and_nothing_is_left() {
    let mut run = Run::shell(&[], "setsid sleep 1000 & echo $! > $DIR/pid; exit 0");
    assert_eq!(run.wait().code(), Some(0));
    let left: i32 = run.read("pid").trim().parse().unwrap();
    assert!(devsync_agent::sys::process_tree::parent(left).is_err());
}

#[test]
fn after_term_the_status_of_the_app_is_passed_on() {
    for (script, code) in [
        ("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done", 7),
        ("trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", 0),
        ("echo up; exec sleep 1000", 128 + libc::SIGTERM),
    ] {
        let mut run = Run::shell(&[], script);
        run.line("out", "up");
        run.signal(libc::SIGTERM);
        assert_eq!(run.wait().code(), Some(code), "{script}");
    }
}

#[test]
fn term_while_held_passes_on_the_crash() {
    for (app, code) in [("/bin/false", 1), ("/no/such/app", 127), ("/etc/passwd", 126)] {
        let mut run = Run::start(&[], &[app]);
        held(&run);
        run.signal(libc::SIGINT);
        assert_eq!(run.wait().code(), Some(code), "{app}");
    }
}

#[test]
fn term_during_a_restart_ends_it_without_a_new_start() {
    let mut run =
        Run::shell(&[], "trap 'echo got; sleep 0.2; exit 5' TERM; echo up; while :; do sleep 0.01; done");
    run.line("out", "up");
    let supervisor = run.supervisor();
    let asked = std::thread::spawn(move || supervisor.restart(deadline()));
    run.line("out", "got");
    run.signal(libc::SIGTERM);
    assert_eq!(run.wait().code(), Some(5));
    assert!(asked.join().unwrap().is_err());
    assert_eq!(run.read("out").matches("up").count(), 1);
}

#[test]
fn without_hold_it_starts_again_by_itself() {
    let mut run = Run::shell(&["--no-hold"], "echo x >> $DIR/runs; [ $(wc -l < $DIR/runs) -ge 3 ]");
    assert_eq!(run.wait().code(), Some(0));
    assert_eq!(run.read("runs").lines().count(), 3);
    assert!(
        run.read("err").contains("starts again in 0.5 s")
            && run.read("err").contains("starts again in 1.0 s")
    );
}

#[test]
fn without_hold_a_request_does_not_wait_for_the_back_off() {
    let run = Run::shell(&["--no-hold"], "[ -e $DIR/good ] && sleep 1000; exit 1");
    run.line("err", "devsync-run: ");
    fs::write(run.path("good"), "").unwrap();
    run.restart();
    assert!(run.supervisor().app().unwrap().is_some());
}
