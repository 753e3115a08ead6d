//! `--wait` and `--exec-copy`: nothing starts before it is asked for, and what lies in `/` starts from its copy.

use std::fs;
use std::process::Command;

use devsync_agent::supervisor::wire::{Cause, State};

use crate::harness::{BINARY, Run};

#[test]
fn nothing_starts_before_the_first_request() {
    let run = Run::shell(&["--wait"], "echo up; sleep 1000");
    assert!(run.line("err", "devsync-run: ").ends_with("is not started before its first sync"));
    let State::Held(held) = run.supervisor().status().unwrap().state else { panic!("it runs") };
    assert_eq!((held.cause, held.output), (Cause::FirstSync, Vec::new()));
    assert_eq!(run.read("out"), "");
    let (old, new) = run.restart();
    assert_eq!((old, Some(new)), (None, run.supervisor().app().unwrap()));
    run.line("out", "up");
    assert_eq!(run.supervisor().status().unwrap().restarts, 0, "the first start is no restart");
    assert_eq!(run.read("err").lines().count(), 1, "{}", run.read("err"));
}

#[test]
fn another_container_does_not_wait_for_a_sync_that_was() {
    let volume = tempfile::tempdir().unwrap();
    let waited = volume.path().join("waited");
    let words = ["--wait", "--waited", waited.to_str().unwrap()];
    let run = Run::shell(&words, "echo up; sleep 1000");
    run.line("err", "devsync-run: ");
    assert!(!waited.exists(), "nothing was synced yet");
    run.restart();
    run.line("out", "up");
    drop(run);
    let run = Run::shell(&words, "echo again; sleep 1000");
    run.line("out", "again");
    assert_eq!(run.read("err"), "");
}

#[test]
fn term_ends_one_that_waits_at_once() {
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let mut run = Run::shell(&["--wait", "--grace", "3600"], "echo up");
        run.line("err", "devsync-run: ");
        run.signal(signal);
        assert_eq!(run.wait().code(), Some(code));
        assert_eq!(run.read("out"), "");
    }
}

#[test]
fn a_program_that_is_not_there_yet_is_started_when_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("app");
    let run = Run::start(&["--wait"], &[program.to_str().unwrap(), "-c", "sleep 1000; :"]);
    run.line("err", "devsync-run: ");
    fs::copy("/bin/sh", &program).unwrap();
    let new = run.restart().1;
    assert_eq!(fs::read_link(format!("/proc/{new}/exe")).unwrap(), program);
}

/// A root of its own, with a program in `/` as a FROM-scratch image has it, and a writable volume at /volume.
fn in_a_root(words: &[&str]) -> Run {
    let root = "mount -t tmpfs none \"$DIR\" && cd \"$DIR\" && mkdir volume usr proc && mount --bind /usr usr \
                && ln -s usr/lib lib && ln -s usr/lib64 lib64 && mount -t proc proc proc && cp \"$1\" run \
                && cp /usr/bin/busybox busybox && mount -o remount,ro . && mount -t tmpfs none volume && shift \
                && exec chroot . /usr/bin/env PATH=/ /run \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", root, "sh", BINARY]);
    command.args(words);
    Run::command(command)
}

#[test]
#[ignore = "needs: root"]
fn what_lies_in_the_root_is_started_from_its_copy() {
    for program in ["/busybox", "busybox"] {
        let script = "echo $0 $(/usr/bin/readlink /proc/$$/exe); exec sleep 1000";
        let run = in_a_root(&["--exec-copy", "/volume", "--", program, "sh", "-c", script]);
        assert_eq!(run.line("out", "sh "), "/volume/busybox", "{}", run.read("err"));
    }
}

#[test]
#[ignore = "needs: root"]
fn what_lies_elsewhere_is_started_from_there() {
    let run =
        in_a_root(&["--exec-copy", "/volume", "--", "/usr/bin/busybox", "sh", "-c", "readlink /proc/$$/exe"]);
    run.line("out", "/usr/bin/busybox");
}
