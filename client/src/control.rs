//! The control socket of a running attach: other devsync commands ask it, as JSON lines.
//!
//! One lock and one socket for each target, in a directory that only its owner may enter; who asks must have the
//! same uid. The lock tells a running attach from a socket that a crash left behind.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::engine::{Board, Command, Difference, Status};
use crate::error::{CommandError, Kind};
use crate::pull::Pulled;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{Attached, ask, listen, running};

#[cfg(not(unix))]
mod none;
#[cfg(not(unix))]
pub use none::{Attached, ask, listen, running};

/// Longest line of a question, in bytes.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Debug, Error)]
pub enum ControlError {
    #[error("{dir} is not a directory of yours alone", dir = dir.display())]
    NotPrivate { dir: PathBuf },
    #[error("the control socket's directory {dir} cannot be used", dir = dir.display())]
    Dir { dir: PathBuf, source: std::io::Error },
    #[error("the control socket {path} cannot be made", path = path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("{target} is attached already: by process {pid} in {directory}, since {since}")]
    Taken { target: String, pid: u32, directory: String, since: String },
    #[error("the running attach (process {pid}) does not answer")]
    NoAnswer { pid: u32 },
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        let hint = match &error {
            ControlError::Taken { .. } => {
                "end that one first (Ctrl-C there), or use it: devsync restart, status, verify, pull"
            }
            ControlError::NotPrivate { .. } => "XDG_RUNTIME_DIR or TMPDIR names another directory",
            ControlError::Dir { .. } | ControlError::Socket { .. } => "is the file system full or read-only?",
            ControlError::NoAnswer { .. } => "devsync status",
        };
        CommandError::of(error).hint(hint)
    }
}

/// Who holds a target, as its lock file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub target: String,
    pub directory: PathBuf,
    pub since: String,
}

/// One engine that answers questions: what it does is asked through a channel, how it does stands on its board.
#[derive(Clone)]
pub struct Seat {
    /// What it is called among several.
    pub name: String,
    pub commands: mpsc::Sender<Command>,
    pub board: Board,
}

/// The engines behind one socket: one, or one for each pod of a workload, which come and go.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Vec<Seat>>>);

impl Desk {
    pub fn join(&self, seat: Seat) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seat);
    }

    pub fn leave(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|seat| seat.name != name);
    }

    pub fn seats(&self) -> Vec<Seat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What another command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    Restart { mode: Option<String>, grace: Option<f64> },
    Status,
    Verify,
    Pull { path: String, into: PathBuf, overwrite: bool },
}

/// What the running attach answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Restarted { text: String },
    Status { targets: Vec<Status> },
    Verified { differences: Vec<Difference> },
    Pulled(Pulled),
    Failed { what: String, causes: Vec<String>, hint: Option<String>, usage: bool },
}

impl From<CommandError> for Answer {
    fn from(error: CommandError) -> Self {
        Answer::Failed {
            what: error.what().to_owned(),
            causes: error.causes(),
            hint: error.get_hint().map(str::to_owned),
            usage: error.kind == Kind::Usage,
        }
    }
}

/// A failure that came through the socket, as if it had happened here.
pub fn failure(answer: Answer) -> CommandError {
    match answer {
        Answer::Failed { what, causes, hint, usage } => {
            let error = CommandError::new(what).hint_opt(hint);
            let error = if usage { error.kind(Kind::Usage) } else { error };
            if causes.is_empty() { error } else { error.cause(causes.join(": ")) }
        }
        _ => CommandError::new("the running attach answered something else"),
    }
}

/// How long the running attach may take to answer: a restart waits for the app's sockets.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
