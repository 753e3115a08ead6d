//! Output passes through whole, its tail is kept exactly, and a reader that is slow or gone hurts nobody.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::harness::{BINARY, Run, python, wait_for};

/// So many bytes that are nowhere alike.
fn expected(bytes: usize) -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("{n}\n").into_bytes()).take(bytes).collect()
}

fn printing(bytes: usize, then: &str) -> Vec<String> {
    let script = format!(
        "import os, sys, time\nb = b''.join(b'%d\\n' % n for n in range({bytes}))[:{bytes}]\n\
         while b: b = b[os.write(1, b):]\n{then}"
    );
    vec![python(), "-c".to_owned(), script]
}

fn piped(app: &[String]) -> Run {
    let mut command = Command::new(BINARY);
    command.arg("--").args(app).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Run::in_dir(command, tempfile::tempdir().unwrap())
}

#[test]
fn all_output_passes_and_the_ring_is_its_last_64_kib() {
    let bytes = 1_000_003;
    let app = printing(bytes, "time.sleep(1000)");
    let run = Run::start(&[], &app.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("all output", || (run.read("out").len() == bytes).then_some(()));
    let all = expected(bytes);
    assert!(run.read("out").as_bytes() == all);
    assert!(run.supervisor().output().unwrap() == all[bytes - 64 * 1024..]);
}

#[test]
fn both_streams_are_in_the_ring_and_go_their_own_ways() {
    let run = Run::shell(&[], "echo one; echo two >&2; sleep 1000");
    run.line("out", "one");
    run.line("err", "two");
    let ring = String::from_utf8(run.supervisor().output().unwrap()).unwrap();
    assert!(ring == "one\ntwo\n" || ring == "two\none\n", "{ring}");
}

#[test]
fn nothing_is_lost_at_exit() {
    let mut run = piped(&printing(300_000, "sys.exit(0)"));
    let mut got = Vec::new();
    run.child().stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert_eq!(run.wait().code(), Some(0));
    assert!(got == expected(300_000));
}

#[test]
fn a_reader_that_does_not_read_stops_neither_control_nor_restart_and_gets_all_later() {
    let mut run = piped(&printing(300_000, "open(os.environ['DIR'] + '/done', 'w'); time.sleep(1000)"));
    let first = run.app();
    wait_for("a full ring", || (run.supervisor().output().unwrap().len() == 64 * 1024).then_some(()));
    assert!(!run.path("done").exists());
    let (old, _) = run.restart();
    assert_eq!(old, Some(first));
    let mut stdout = run.child().stdout.take().unwrap();
    let mut buffer = [0; 65536];
    wait_for("the second run's end of output", || {
        assert!(stdout.read(&mut buffer).unwrap() > 0);
        run.path("done").exists().then_some(())
    });
}

#[test]
fn a_reader_that_is_gone_does_not_end_the_app() {
    let mut run = piped(&printing(1_000_000, "open(os.environ['DIR'] + '/done', 'w'); time.sleep(1000)"));
    drop(run.child().stdout.take());
    wait_for("all written", || run.path("done").exists().then_some(()));
    assert_eq!(run.supervisor().output().unwrap().len(), 64 * 1024);
}

#[test]
fn output_of_a_run_that_made_its_pipe_non_blocking_does_not_spoil_the_next() {
    let run = Run::shell(
        &[],
        "python3 -c 'import os; print(os.get_blocking(1), flush=True); os.set_blocking(1, False)'; sleep 1000",
    );
    run.line("out", "True");
    run.restart();
    wait_for("the second run", || (run.read("out") == "True\nTrue\n").then_some(()));
}
