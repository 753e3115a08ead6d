//! A command run to its end, and what it printed.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::PATIENCE;

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Runs a command to its end, without input; one that hangs is killed.
    pub fn by(command: Command) -> Result<Said> {
        Self::fed(command, Vec::new())
    }

    /// The same with `input` on its standard input.
    pub fn fed(mut command: Command, input: Vec<u8>) -> Result<Said> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().with_context(|| format!("start {command:?}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        // Both end with the command, which may read less than it is given.
        thread::spawn(move || stdin.write_all(&input));
        let (done_tx, done) = channel();
        thread::spawn(move || done_tx.send(child.wait_with_output()));
        let Ok(output) = done.recv_timeout(PATIENCE) else {
            kill(pid, Signal::SIGKILL)?;
            bail!("{command:?} does not end: {:?}", done.recv());
        };
        let output = output?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// Fails unless it ended with `code`.
    pub fn code(self, code: i32) -> Result<Said> {
        ensure!(self.code == Some(code), "ended with {:?}, not {code}: {self:#?}", self.code);
        Ok(self)
    }

    /// Fails unless it ended as a refused request does: an error, its hint, none of the internal exit codes.
    pub fn refused(self, words: &[&str]) -> Result<Said> {
        ensure!(self.code.is_some_and(|code| code != 0 && code < 100), "not refused: {self:#?}");
        self.says(&[&["error:", "hint:"], words].concat())
    }

    /// Fails unless each of `words` stands in standard error.
    pub fn says(self, words: &[&str]) -> Result<Said> {
        for word in words {
            ensure!(self.err.contains(word), "no {word:?} in: {self:#?}");
        }
        Ok(self)
    }
}
