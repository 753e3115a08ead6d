//! As PID 1 of its own PID namespace, with and without /proc, asked from outside.

use std::process::Command;

use devsync_agent::sys::process_tree;

use crate::harness::{BINARY, Run, wait_for};

/// Runs devsync-run as PID 1 of a new PID namespace after `setup` in a new mount namespace.
fn isolated(setup: &str, script: &str) -> Run {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount", "/bin/sh", "-c"]);
    command.arg(format!("{setup} && exec \"$@\""));
    command.args(["sh", BINARY, "--grace", "200ms", "--", "/bin/sh", "-c", script]);
    Run::command(command)
}

/// Pid of the devsync-run below unshare, as seen from here.
fn first(run: &Run) -> i32 {
    wait_for("PID 1", || {
        process_tree::descendants(run.pid())
            .into_iter()
            .find(|pid| process_tree::parent(*pid).ok() == Some(run.pid()))
    })
}

const STUBBORN: &str = "setsid sh -c 'trap \"\" TERM; echo stubborn; sleep 1000; :' & echo up; sleep 1000";

fn restarts(setup: &str) {
    let run = isolated(setup, STUBBORN);
    run.line("out", "stubborn");
    let pid = first(&run);
    let supervisor = run.supervisor_of(pid);
    assert_eq!(supervisor.pid(), pid);
    let app = supervisor.app().unwrap().unwrap();
    assert_eq!(process_tree::parent(app).unwrap(), pid);
    let before = process_tree::descendants(pid);
    assert!(before.len() >= 3, "{before:?}");
    match supervisor.restart(crate::harness::deadline()).unwrap() {
        devsync_agent::restart::supervise::Outcome::Restarted { old, new, .. } => {
            assert_eq!(old, Some(app));
            assert_ne!(new, Some(app));
            assert_eq!(new, supervisor.app().unwrap());
        }
        held => panic!("{held:?}"),
    }
    for old in before {
        assert!(process_tree::parent(old).is_err(), "{old} is left");
    }
}

#[test]
#[ignore = "needs: root"]
fn as_pid_1_it_restarts_and_ends_all() {
    restarts("mount -t proc proc /proc");
}

#[test]
#[ignore = "needs: root"]
fn as_pid_1_without_proc_it_still_ends_all() {
    restarts("mount -t tmpfs none /proc");
}

#[test]
#[ignore = "needs: root"]
fn with_the_proc_of_another_namespace_it_kills_no_stranger() {
    restarts(":");
}

#[test]
#[ignore = "needs: root"]
fn term_reaches_the_app_of_pid_1() {
    let run = isolated(":", "trap 'echo ended; exit 0' TERM; echo up; while :; do sleep 0.01; done");
    run.line("out", "up");
    devsync_agent::sys::signals::send(first(&run), libc::SIGTERM).unwrap();
    run.line("out", "ended");
}

#[test]
#[ignore = "needs: root"]
fn two_with_the_same_pid_in_their_own_namespaces_are_told_apart() {
    let runs = [(); 2].map(|()| isolated(":", "echo up; sleep 1000"));
    for run in &runs {
        run.line("out", "up");
    }
    let found = runs.each_ref().map(|run| run.supervisor_of(first(run)));
    assert_ne!(found[0].pid(), found[1].pid());
    for (run, supervisor) in runs.iter().zip(found) {
        assert_eq!(supervisor.pid(), first(run));
        supervisor.restart(crate::harness::deadline()).unwrap();
        assert_eq!(supervisor.status().unwrap().restarts, 1);
    }
}
