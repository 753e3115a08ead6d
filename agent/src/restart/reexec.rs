//! Re-exec: every thread of the app is seized, then one of them is made to call execve of the app's path, with the
//! arguments, environment and directory that were recorded. Same PID, so nobody above the app notices.
//!
//! The order keeps the app safe. All that can be known is checked first (`preflight`); then nothing is changed that
//! is not noted beforehand with the call that undoes it (`inject`); the undoing lies in the app's own memory, so
//! that it happens even when the tracer is killed. A program that shuts down by itself (`graceful`) does so while
//! it is traced, and its last exit becomes the execve.

use std::time::Duration;

use devsync_protocol::restart::{Ending, Refusal, RestartFailure};
use serde::{Deserialize, Serialize};

mod after;
mod arch;
mod elf;
mod engine;
mod error;
mod graceful;
mod image;
mod inject;
mod place;
mod preflight;
mod recorded;
mod refusal;
mod threads;

pub(super) use engine::{probe, restart};
pub use recorded::{Recorded, RecordedError};

/// What the helper is to do, written to its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The app's process, in the helper's pid namespace.
    pub pid: i32,
    /// Its start time in clock ticks: with the number it names the process.
    pub start_time: u64,
    /// The work.
    pub task: Task,
}

/// The work of a helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Say whether a restart would be permitted, by seizing the process and letting it go.
    Probe,
    /// Restart it.
    Restart(Box<Restart>),
}

/// A restart as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// What to execute, and how it was started.
    pub recorded: Recorded,
    /// How to end the old program.
    pub style: Style,
    /// Whether the processes that the old program started, and left, are ended too.
    pub end_descendants: bool,
    /// The program's instance as an earlier helper saw it, which ended without an answer: if the process runs
    /// another one by now, the work is done.
    pub instance: Option<u64>,
}

/// How the old program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// SIGTERM, and this long for what it does then.
    Graceful { grace: Duration },
    /// SIGTERM was sent before: this long for what it still does. A helper that died is followed by this.
    Resume { grace: Duration },
    /// At once.
    Forced,
}

impl Style {
    /// The grace that most apps are content with.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);
    /// The longest that is waited: nothing else is restarted meanwhile.
    pub const MAX_GRACE: Duration = Duration::from_secs(300);

    /// How long the old program may take.
    pub fn grace(self) -> Duration {
        match self {
            Self::Graceful { grace } | Self::Resume { grace } => grace,
            Self::Forced => Duration::ZERO,
        }
    }

    /// The same with no more than the longest grace.
    pub(super) fn capped(self) -> Self {
        let grace = self.grace().min(Self::MAX_GRACE);
        match self {
            Self::Graceful { .. } => Self::Graceful { grace },
            Self::Resume { .. } => Self::Resume { grace },
            Self::Forced => Self::Forced,
        }
    }
}

/// What the helper says on its standard output: `Begun` before it touches the app, then one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The work begins on this instance of the program.
    Begun {
        /// Which every execve changes.
        instance: u64,
    },
    /// To a probe: it may be traced.
    Permitted,
    /// To a probe: it may not.
    Refused(Refusal),
    /// The new program runs.
    Done(Done),
    /// It does not.
    Failed(RestartFailure),
}

/// A re-exec that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How the old program ended.
    pub ending: Ending,
    /// From the first seized thread to the release of the new program.
    pub tracer_micros: u64,
    /// How many processes of the old program were ended.
    pub descendants: u32,
}
