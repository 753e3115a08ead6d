//! Why a re-exec did not happen, each with the hint that helps; the user's three lines are made here.

use std::io;
use std::path::{Path, PathBuf};

use devsync_protocol::restart::{AppState, Refusal, RestartFailure};

use super::elf::ElfError;
use crate::sys::ptrace::Ending;

/// What went wrong, by step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReexecError {
    #[error("process {pid} is not the one that was chosen: it ended, and its number was given to another")]
    Replaced { pid: i32 },
    #[error("{0}")]
    Refused(Refusal),
    #[error("cannot read {what} of process {pid}")]
    Proc { what: &'static str, pid: i32, source: io::Error },
    #[error("{} does not exist in the app's root", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be opened in the app's root", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is a {kind}, not a regular file", path.display())]
    NotRegular { path: PathBuf, kind: &'static str },
    #[error("{} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("{} may not be executed by uid {uid}: its mode is {mode:04o}", path.display())]
    NotExecutable { path: PathBuf, mode: u32, uid: u32 },
    #[error("{} is open for writing in some process", path.display())]
    Busy { path: PathBuf },
    #[error("{} would not be executed", path.display())]
    Binary { path: PathBuf, source: ElfError },
    #[error("{} needs {}", path.display(), interpreter.display())]
    Interpreter { path: PathBuf, interpreter: PathBuf, source: Box<ReexecError> },
    #[error("cannot {operation} thread {tid}")]
    Trace { operation: &'static str, tid: i32, source: io::Error },
    #[error("thread {tid} did not stop in time: state {state}")]
    Unstoppable { tid: i32, state: char },
    #[error("the process ended while it was held: {ending:?}")]
    Ended { ending: Option<Ending> },
    #[error("no place for a system call was found in the app's memory")]
    NoPlace,
    #[error("the app's call of {call} failed")]
    Call { call: &'static str, source: io::Error },
    #[error("the app did not come back from its call of {call} in time")]
    Stuck { call: &'static str },
    #[error("cannot write the app's memory")]
    Memory { source: io::Error },
    #[error("the kernel refused to execute {}", path.display())]
    Execute { path: PathBuf, source: io::Error },
    #[error("the app executed another program by itself while it shut down")]
    ExecutedItself,
    #[error("cannot wait for the app's threads")]
    Wait { source: io::Error },
}

impl ReexecError {
    /// What would help.
    fn hint(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::Missing { .. } | Self::NotRegular { .. } | Self::Open { .. } => {
                "name the app's executable with --exe".into()
            }
            Self::NotExecutable { .. } => "set its mode on the laptop: chmod +x".into(),
            Self::Empty { .. } | Self::Binary { .. } => {
                "build it for the app's operating system and processor".into()
            }
            Self::Interpreter { .. } => "link it statically, or against what the image has".into(),
            Self::Busy { .. } => "close the writer; devsync itself replaces files by rename".into(),
            Self::Unstoppable { .. } => {
                "it waits in the kernel (a vfork child, a hung volume); try again".into()
            }
            Self::Execute { .. } => "run the executable in the pod by hand to see why".into(),
            Self::Call { .. } | Self::Stuck { .. } | Self::NoPlace => {
                "start the app under devsync-run, and use restart mode supervise".into()
            }
            _ => "try again; if it stays so, use restart mode supervise".into(),
        }
    }

    /// The failure as it is shown, with the causes in one line.
    pub(crate) fn into_failure(self, pid: i32, exe: &Path, app: AppState) -> RestartFailure {
        let mut cause = self.to_string();
        let mut source = std::error::Error::source(&self);
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        let what = format!("re-exec of {} in process {pid}", exe.display());
        RestartFailure { what, cause, hint: self.hint(), app }
    }
}
