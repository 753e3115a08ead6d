//! Delve, headless: it only listens on a port, so it is connected to at once, and its first client is the only one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;

use super::DebugError;
use super::tool::{Tool, interrupt, let_end};
use crate::target::identity::Identity;

/// What delve says before the address.
const LISTENS: &str = "API server listening at: ";
/// It may say other things first.
const LINES: usize = 50;
const PART: usize = 64 * 1024;

/// The version that `dlv version` says.
pub(super) fn version(app: &Identity) -> Option<String> {
    let mut command = Tool::find("dlv").ok()?.command(app).ok()?;
    let said = command.arg("version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout);
    said.lines().find_map(|line| line.strip_prefix("Version: ")).map(|version| version.trim().to_owned())
}

/// Joins standard input and output with delve, which lets go of the app when its client goes.
pub(super) fn run(tool: Tool, app: &Identity) -> Result<(), DebugError> {
    let mut command = tool.command(app)?;
    let pid = app.pid().to_string();
    command.args(["attach", &pid, "--headless", "--api-version=2", "--listen=127.0.0.1:0"]);
    // The client has compared them, and a delve of one's own is one's own choice.
    command.arg("--check-go-version=false");
    let mut child = tool.spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let silent = || DebugError::Silent { tool: tool.name() };
    let mut said = BufReader::new(child.stdout.take().ok_or_else(silent)?);
    let stream = match listens(&mut said).ok_or_else(silent).and_then(|at| connect(at, app)) {
        Ok(stream) => stream,
        Err(error) => {
            interrupt(child.id());
            return let_end(&tool, child).and(Err(error));
        }
    };
    // What it prints later is nobody's, and must not fill its pipe.
    thread::spawn(move || io::copy(&mut said, &mut io::sink()));
    carry(&stream).map_err(|source| DebugError::Io { what: "carry delve's API", source })?;
    let_end(&tool, child)
}

fn listens(said: &mut impl BufRead) -> Option<SocketAddr> {
    for _ in 0..LINES {
        let mut line = String::new();
        if said.take(4096).read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().strip_prefix(LISTENS) {
            Some(address) => return address.parse().ok(),
            None => eprint!("{line}"),
        }
    }
    None
}

/// Delve takes only a client of its own user: a socket belongs to the file system ids that it was made with.
fn connect(address: SocketAddr, app: &Identity) -> Result<TcpStream, DebugError> {
    let _ids = app.access().enter()?;
    let stream = TcpStream::connect(address);
    stream.map_err(|source| DebugError::Io { what: "connect to delve", source })
}

/// Until delve closes, which it does when its client has gone.
pub(super) fn carry(stream: &TcpStream) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    thread::spawn(move || {
        let _ = pass(&mut io::stdin().lock(), &mut to);
        // Both ways: delve waits for no more, and a client that has gone reads nothing.
        let _ = to.shutdown(Shutdown::Both);
    });
    let passed = pass(&mut &*stream, &mut io::stdout().lock());
    let _ = stream.shutdown(Shutdown::Both);
    passed
}

fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        match from.read(&mut part)? {
            0 => return Ok(()),
            len => to.write_all(part.get(..len).unwrap_or_default()).and_then(|()| to.flush())?,
        }
    }
}
