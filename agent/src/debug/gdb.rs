//! gdbserver on standard input and output. While the app runs it takes no notice of the end of its input, so the app is
//! then sent a signal that means nothing to it, whose arrival gdbserver looks at: it finds its client gone, and lets go.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::libc::SIGCONT;

use super::DebugError;
use super::tool::Tool;
use crate::target::identity::Identity;

const PART: usize = 64 * 1024;
/// Between two signals: gdbserver may have been busy, or gdb may have told it to pass one on without a look.
const PAUSE: Duration = Duration::from_millis(200);

/// Who ended.
enum Over {
    Input,
    Gdbserver(io::Result<std::process::ExitStatus>),
}

/// Runs until gdbserver ends. It is never killed: its breakpoints would stay in the app.
pub(super) fn run(tool: Tool, app: &Identity) -> Result<(), DebugError> {
    let mut command = tool.command(app)?;
    command.args(["--once", "-", "--attach"]).arg(app.pid().to_string()).stdin(Stdio::piped());
    let mut child = tool.spawn(&mut command)?;
    let io = |source| DebugError::Io { what: "talk to gdbserver", source };
    let to = child.stdin.take().ok_or_else(|| io(io::Error::other("no pipe")))?;
    let (tell, told) = channel();
    let ended = tell.clone();
    // Ends with our input, or when gdbserver has gone.
    thread::spawn(move || pass(to, &tell));
    thread::spawn(move || ended.send(Over::Gdbserver(child.wait())));
    let status = wait(&told, app).map_err(io)?;
    super::tool::ended(&tool, status)
}

fn wait(told: &Receiver<Over>, app: &Identity) -> io::Result<std::process::ExitStatus> {
    let lost = || io::Error::other("its end was lost");
    match told.recv().map_err(|_| lost())? {
        Over::Gdbserver(status) => return status,
        Over::Input => {}
    }
    loop {
        // Ignored by who does not handle it, and by a process that is stopped by its debugger.
        let _ = app.signal(SIGCONT);
        match told.recv_timeout(PAUSE) {
            Ok(Over::Gdbserver(status)) => return status,
            Ok(Over::Input) | Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(lost()),
        }
    }
}

fn pass(mut to: ChildStdin, tell: &Sender<Over>) {
    let mut from = io::stdin().lock();
    let mut part = vec![0; PART];
    while let Ok(len @ 1..) = from.read(&mut part) {
        if to.write_all(part.get(..len).unwrap_or_default()).is_err() {
            break;
        }
    }
    drop(to);
    let _ = tell.send(Over::Input);
}
