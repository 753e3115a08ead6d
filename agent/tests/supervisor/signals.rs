//! Signals reach the app's group, and the app starts as from a plain shell: default signals, no extra descriptors, same words.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::harness::{BINARY, Run, python, status_field, wait_for};

const ECHO: &str = "
import signal, time
def say(number, frame):
    print('got', number, flush=True)
numbers = [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT,
           signal.SIGALRM, signal.SIGRTMIN + 3, signal.SIGTERM, signal.SIGINT]
for number in numbers:
    signal.signal(number, say)
print('up', flush=True)
# A signal that comes just before a sleep begins is handled only after it.
while True:
    time.sleep(0.02)
";

#[test]
fn signals_are_forwarded() {
    let run = Run::start(&[], &[&python(), "-c", ECHO]);
    run.line("out", "up");
    for number in [
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        libc::SIGCONT,
        libc::SIGALRM,
        libc::SIGRTMIN() + 3,
        libc::SIGTERM,
        libc::SIGINT,
    ] {
        run.signal(number);
        run.line("out", &format!("got {number}"));
    }
}

#[test]
fn a_terminal_stop_signal_stops_the_app_and_cont_continues_it() {
    let run = Run::shell(&[], "echo up; exec sleep 1000");
    run.line("out", "up");
    let app = run.app();
    run.signal(libc::SIGTSTP);
    wait_for("stopped", || status_field(app, "State").starts_with('T').then_some(()));
    run.signal(libc::SIGCONT);
    wait_for("continued", || status_field(app, "State").starts_with('S').then_some(()));
}

#[test]
fn inherited_ignored_and_blocked_signals_do_not_reach_the_app() {
    let mut command = Command::new("env");
    command.args(["--ignore-signal=HUP,CHLD,USR1", "--block-signal=TERM,INT", BINARY, "sleep", "1000"]);
    let mut run = Run::command(command);
    let app = run.app();
    for field in ["SigIgn", "SigBlk"] {
        assert_eq!(status_field(app, field).trim_start_matches('0'), "", "{field}");
    }
    run.signal(libc::SIGTERM);
    assert_eq!(run.wait().code(), Some(128 + libc::SIGTERM));
}

#[test]
fn the_app_gets_three_descriptors_and_its_own_group() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 7</dev/null 9</dev/null; exec \"$@\"", "sh", BINARY, "sleep", "1000"]);
    let run = Run::command(command);
    for restarted in [false, true] {
        let app = if restarted { run.restart().1 } else { run.app() };
        // While it loads its libraries it has one more open.
        let fds = || fs::read_dir(format!("/proc/{app}/fd")).unwrap().count();
        wait_for("three descriptors", || (fds() == 3).then_some(()));
        assert_eq!(nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(app))).unwrap().as_raw(), app);
    }
}

#[test]
fn words_and_environment_are_passed_byte_for_byte() {
    let odd = OsStr::from_bytes(b"\xff\n --grace");
    let mut command = Command::new(BINARY);
    command.args(["--", "sleep", "1000"]).env_clear().env("ODD", odd).env("PATH", "/usr/bin:/bin");
    let run = Run::command(command);
    let environ = fs::read(format!("/proc/{}/environ", run.app())).unwrap();
    assert_eq!(environ, fs::read(format!("/proc/{}/environ", run.pid())).unwrap());
    let mut command = Command::new(BINARY);
    command.args(["sh", "-c", "sleep 1000; :"]).arg(odd);
    let run = Run::command(command);
    let words = fs::read(format!("/proc/{}/cmdline", run.app())).unwrap();
    assert_eq!(words, b"sh\0-c\0sleep 1000; :\0\xff\n --grace\0");
}
