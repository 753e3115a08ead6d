//! gdbserver on standard input and output. It takes no notice of the end of its input while the app runs, so that end
//! is announced by an interrupt of the protocol, which stops the app for the moment that letting go takes.

use std::io::{self, Read, Write};
use std::process::Stdio;
use std::thread;

use super::DebugError;
use super::tool::Tool;
use crate::target::identity::Identity;

/// The protocol's interrupt; between packets it is passed over where nothing runs.
const INTERRUPT: u8 = 3;
const PART: usize = 64 * 1024;

/// Runs until gdbserver ends, which it does, detaching, when its input has ended.
pub(super) fn run(tool: Tool, app: &Identity) -> Result<(), DebugError> {
    let mut command = tool.command(app)?;
    command.args(["--once", "-", "--attach"]).arg(app.pid().to_string()).stdin(Stdio::piped());
    let mut child = tool.spawn(&mut command)?;
    let io = |source| DebugError::Io { what: "talk to gdbserver", source };
    let mut to = child.stdin.take().ok_or_else(|| io(io::Error::other("no pipe")))?;
    // Ends with our input, or when gdbserver has gone.
    thread::spawn(move || {
        let mut from = io::stdin().lock();
        let mut part = vec![0; PART];
        while let Ok(len @ 1..) = from.read(&mut part) {
            if to.write_all(part.get(..len).unwrap_or_default()).is_err() {
                return;
            }
        }
        let _ = to.write_all(&[INTERRUPT]);
    });
    // It is never killed: its breakpoints would stay in the app.
    let status = child.wait().map_err(io)?;
    super::tool::ended(&tool, status)
}
