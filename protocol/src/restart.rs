//! How an app is restarted, what a restart reports, and why one was refused: the types that travel.
//! Must not know how any of it is done.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name or number that `signal:` takes.
const MAX_SIGNAL_LEN: usize = 16;

/// What shall happen to the app after its files changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum RestartMode {
    /// The best of the others that this app permits.
    #[default]
    Auto,
    /// Ask the `devsync-run` that the app was started under.
    Supervise,
    /// Replace the program in place, in the same process, by ptrace.
    Reexec,
    /// Send a signal; the app reloads by itself.
    Signal(SignalName),
    /// Nothing: the app notices by itself.
    None,
}

/// A signal by its name without `SIG` (`HUP`) or by its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignalName(String);

/// A text that is no restart mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestartModeError {
    /// Not one of the known words.
    #[error("unknown restart mode {0:?}: expected auto, supervise, reexec, signal:NAME or none")]
    Unknown(String),
    /// `signal:` with something that cannot be a signal.
    #[error("{0:?} is no signal: expected a name such as HUP or USR1, or a number from 1 to 64")]
    Signal(String),
}

impl SignalName {
    /// The name in capitals without `SIG`, or a number in decimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SignalName {
    type Error = RestartModeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SignalName> for String {
    fn from(name: SignalName) -> String {
        name.0
    }
}

impl FromStr for SignalName {
    type Err = RestartModeError;

    /// Accepts `HUP`, `SIGHUP`, `hup`, `1`, `RTMIN+3`; whether the name exists is the agent's to say.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || RestartModeError::Signal(text.chars().take(MAX_SIGNAL_LEN).collect());
        if text.is_empty() || text.len() > MAX_SIGNAL_LEN {
            return Err(refused());
        }
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=64).contains(&number) { Ok(Self(number.to_string())) } else { Err(refused()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let starts_well = name.starts_with(|c: char| c.is_ascii_uppercase());
        let plain = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "+-".contains(c));
        if starts_well && plain { Ok(Self(name.to_owned())) } else { Err(refused()) }
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RestartMode {
    type Err = RestartModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "supervise" => Self::Supervise,
            "reexec" => Self::Reexec,
            "none" => Self::None,
            other => match other.strip_prefix("signal:") {
                Some(name) => Self::Signal(name.parse()?),
                None => return Err(RestartModeError::Unknown(other.chars().take(40).collect())),
            },
        })
    }
}

impl fmt::Display for RestartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Supervise => f.write_str("supervise"),
            Self::Reexec => f.write_str("reexec"),
            Self::Signal(name) => write!(f, "signal:{name}"),
            Self::None => f.write_str("none"),
        }
    }
}

/// How the old program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It ran its own shutdown on SIGTERM: handlers, exit hooks.
    Graceful,
    /// It has no SIGTERM handler, so there was nothing to run.
    Immediate,
    /// SIGTERM is blocked or ignored, or its shutdown outlasted the grace.
    Forced,
}

/// A restart that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// What was done; never `Auto`.
    pub mode: RestartMode,
    /// The app's process before, in the agent's pid namespace.
    pub old_pid: u32,
    /// And after.
    pub new_pid: u32,
    /// How the old program ended; `None` where it did not (`signal:`, `none`).
    pub ending: Option<Ending>,
    /// From the request to the new program's first instruction.
    pub micros: u64,
    /// Of these, the time the app was held by the tracer; 0 without one.
    pub tracer_micros: u64,
    /// How often this app was restarted in this session, this time included.
    pub count: u32,
}

impl RestartReport {
    /// Whether the process kept its PID, so that nobody above it noticed.
    pub fn same_pid(&self) -> bool {
        self.old_pid == self.new_pid
    }
}

/// A restart that did not happen, in the three lines a user needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct RestartFailure {
    /// The object and the operation: `re-exec of /app/server in process 17`.
    pub what: String,
    /// Why.
    pub cause: String,
    /// What would help.
    pub hint: String,
    /// What became of the app.
    pub app: AppState,
}

/// What a failed restart left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppState {
    /// The old program serves on as if nothing had been tried.
    Untouched,
    /// The old program had already shut down, so its old executable was started again.
    OldStartedAgain,
    /// The process is gone.
    Gone,
    /// Old or new, running or about to end: the helper gave no answer, or the old program was told to end and
    /// could not be replaced.
    Unknown,
}

impl fmt::Display for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "the old process goes on serving",
            Self::OldStartedAgain => "the old executable was started again",
            Self::Gone => "the process has ended",
            Self::Unknown => "whether the old or the new program runs is not known",
        })
    }
}

/// Why a process may not be traced; each kind has its own way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// A seccomp filter of the agent's container takes ptrace away.
    Seccomp,
    /// Yama's ptrace_scope.
    Yama,
    /// Another uid or gid than the app's.
    Ids,
    /// The app has capabilities that the agent lacks.
    Capabilities,
    /// The app is not dumpable (it changed its ids without exec, or its binary is unreadable).
    NotDumpable,
    /// A debugger is attached.
    Traced,
    /// The app has seccomp filters of its own, which injected calls would run into.
    AppSeccomp,
    /// A 32-bit or emulated process.
    Foreign,
    /// The process is gone.
    Gone,
    /// Nothing that can be seen from here: an LSM.
    Unexplained,
    /// The app wrote over its own arguments, so how it was started is not known.
    Retitled,
}

/// ptrace is not permitted, known before the first write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// The kind, for a program to act on.
    pub kind: RefusalKind,
    /// One sentence.
    pub cause: String,
    /// The line to change.
    pub hint: String,
}

/// The app's listening sockets after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyReport {
    /// The TCP ports that listened before and do so again.
    pub ports: Vec<u16>,
    /// Those that did not come back in time.
    pub missing: Vec<u16>,
    /// Until the last one was back, or the deadline.
    pub micros: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back_as_they_are_written() {
        for text in ["auto", "supervise", "reexec", "none", "signal:HUP", "signal:10", "signal:RTMIN+3"] {
            let mode: RestartMode = text.parse().expect(text);
            assert_eq!(mode.to_string(), text);
        }
    }

    #[test]
    fn a_signal_may_be_written_in_the_usual_ways() {
        let hup = RestartMode::Signal(SignalName("HUP".into()));
        for text in ["signal:hup", "signal:SIGHUP", "signal:HUP"] {
            assert_eq!(text.parse::<RestartMode>().as_ref(), Ok(&hup), "{text}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "kill", "signal", "signal:", "signal:0", "signal:65", "signal:A B", "signal:-1"] {
            assert!(text.parse::<RestartMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_signal_from_the_wire_is_checked() {
        let bytes = postcard::to_stdvec("rm -rf").expect("encodes");
        assert!(postcard::from_bytes::<SignalName>(&bytes).is_err());
    }
}
