//! On a terminal: the app is in the foreground, Ctrl-C and Ctrl-Z reach it. A Python program plays the terminal.

use std::process::{Command, Stdio};

use crate::harness::{BINARY, Run, python};

/// Runs argv[2:] as the session leader of a new terminal; steps in argv[1]: `text -> bytes` sends bytes when text was seen. NOFLSH: the kernel else
/// drops what is written just after Ctrl-C and Ctrl-Z, for it signals first and flushes then.
const TERMINAL: &str = r"
import os, pty, select, sys, termios, time
steps = [step.split(' -> ') for step in sys.argv[1].splitlines()]
pid, fd = pty.fork()
if pid == 0:
    modes = termios.tcgetattr(0)
    modes[3] |= termios.NOFLSH
    termios.tcsetattr(0, termios.TCSANOW, modes)
    os.execv(sys.argv[2], sys.argv[2:])
seen, until = b'', time.time() + 60
while time.time() < until:
    if not select.select([fd], [], [], 60)[0]:
        break
    try:
        data = os.read(fd, 4096)
    except OSError:
        data = b''
    if not data:
        break
    seen += data
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    while steps and steps[0][0].encode() in seen:
        seen = seen.split(steps[0][0].encode(), 1)[1]
        os.write(fd, steps.pop(0)[1].encode().decode('unicode_escape').encode('latin1'))
else:
    os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
print('STATUS', os.waitstatus_to_exitcode(status), 'STEPS', len(steps), flush=True)
";

fn play(steps: &str, program: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut command = Command::new(python());
    command.args(["-c", TERMINAL, steps]).args(program).stdin(Stdio::null());
    command.stdout(std::fs::File::create(&out).unwrap()).stderr(Stdio::inherit());
    let mut run = Run::in_dir(command, dir);
    assert!(run.wait().success());
    run.read("out")
}

/// Its handlers write without print, which must not be entered twice.
const APP: &str = "
import os, signal, sys, time
def stop(number, frame):
    os.write(1, b'INTERRUPTED\\n')
    sys.exit(int(sys.argv[1]))
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGCONT, lambda *a: os.write(1, b'CONTINUED\\n'))
print('FOREGROUND', os.tcgetpgrp(0) == os.getpgrp() == os.getpid(), os.isatty(1), flush=True)
# A signal that comes just before a sleep begins is handled only after it.
while True:
    time.sleep(0.02)
";

#[test]
fn the_app_has_the_foreground_and_ctrl_c_reaches_it() {
    let python = python();
    let text = play("FOREGROUND True True -> \\x03", &[BINARY, "--", &python, "-c", APP, "130"]);
    assert!(text.contains("INTERRUPTED") && text.contains("STATUS 130 STEPS 0"), "{text}");
}

#[test]
fn ctrl_c_while_held_ends_it_with_the_crash() {
    let python = python();
    let steps = "FOREGROUND True True -> \\x03\nheld until -> \\x03";
    let text = play(steps, &[BINARY, "--", &python, "-c", APP, "9"]);
    assert!(text.contains("STATUS 9 STEPS 0"), "{text}");
}

#[test]
fn ctrl_z_where_no_shell_could_continue_it_does_not_stop_the_app() {
    let python = python();
    let steps = "FOREGROUND True True -> \\x1a\nCONTINUED -> \\x03";
    let text = play(steps, &[BINARY, "--", &python, "-c", APP, "0"]);
    assert!(text.contains("STATUS 0 STEPS 0"), "{text}");
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_gives_it_back() {
    let python = python();
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("app.py");
    std::fs::write(&app, APP).unwrap();
    let start = format!("{BINARY} -- {python} {} 0\\n", app.display());
    let steps = format!(
        "READY> -> {start}\nFOREGROUND True True -> \\x1a\nREADY> -> fg\\n\nCONTINUED -> \\x03\nREADY> -> exit 3\\n"
    );
    let bash = ["/usr/bin/env", "PS1=READY> ", "/bin/bash", "--norc", "--noprofile", "-i"];
    let text = play(&steps, &bash);
    assert!(text.contains("INTERRUPTED") && text.contains("STATUS 3 STEPS 0"), "{text}");
}
