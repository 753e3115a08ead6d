//! gdbserver on standard input and output, and its end without gdb: it takes no notice of the end of its input while the
//! app runs, and would leave its breakpoints in the app. So the app is sent a signal that means nothing to it, which
//! gdbserver stops it for, and what gdb put in is taken out in gdb's place.

mod client;

use std::io::{self, Read, Write};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::libc::SIGCONT;

use super::DebugError;
use super::tool::Tool;
use crate::target::identity::Identity;
use client::Client;

const PART: usize = 64 * 1024;
/// Between two signals: gdbserver may have been busy.
const PAUSE: Duration = Duration::from_millis(200);

/// Who ended.
enum Over {
    Input,
    Gdbserver(io::Result<ExitStatus>),
}

/// Runs until gdbserver ends. It is never killed: its breakpoints would stay in the app.
pub(super) fn run(tool: Tool, app: &Identity) -> Result<(), DebugError> {
    let mut command = tool.command(app)?;
    command.args(["--once", "-", "--attach"]).arg(app.pid().to_string());
    let mut child = tool.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let io = |source| DebugError::Io { what: "talk to gdbserver", source };
    let no_pipe = || io(io::Error::other("no pipe"));
    let to = child.stdin.take().ok_or_else(no_pipe)?;
    let from = child.stdout.take().ok_or_else(no_pipe)?;
    let (tell, told) = channel();
    let (ended, pid) = (tell.clone(), app.pid());
    let answers = thread::spawn(move || answer(from));
    // Ends with our input, or when gdbserver has gone.
    thread::spawn(move || pass(to, pid, &tell));
    thread::spawn(move || ended.send(Over::Gdbserver(child.wait())));
    let status = wait(&told, app).map_err(io)?;
    let _ = answers.join();
    super::tool::ended(&tool, status)
}

fn wait(told: &Receiver<Over>, app: &Identity) -> io::Result<ExitStatus> {
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
            Ok(Over::Input) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(lost()),
        }
    }
}

/// What gdb says; and at its end, what it would say to let go.
fn pass(mut to: ChildStdin, pid: u32, tell: &Sender<Over>) {
    let mut client = Client::of(pid);
    let mut from = io::stdin().lock();
    let mut part = vec![0; PART];
    while let Ok(len @ 1..) = from.read(&mut part) {
        let bytes = client.pass(part.get(..len).unwrap_or_default());
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // In one piece: each arrival may cost a byte.
    let _ = to.write_all(&client.farewell());
    drop(to);
    let _ = tell.send(Over::Input);
}

/// What gdbserver says. It is read to its end even when nobody wants it: it must not wait, nor die of a broken pipe.
fn answer(mut from: impl Read) {
    let mut out = Some(io::stdout().lock());
    let mut part = vec![0; PART];
    while let Ok(len @ 1..) = from.read(&mut part) {
        let bytes = part.get(..len).unwrap_or_default();
        if let Some(to) = &mut out
            && to.write_all(bytes).and_then(|()| to.flush()).is_err()
        {
            out = None;
        }
    }
}
