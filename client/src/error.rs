//! What a person sees when a command fails: the object, the causes, a hint; and the exit code.
//!
//! Library errors are thiserror enums beside their code; this is where they become words for a terminal.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::report::plain;

/// What kind of failure it is, and so which exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exit code 1.
    Failure,
    /// Exit code 2: the command line or devsync.toml asks for something that cannot be.
    Usage,
    /// Exit code 3: the cluster, its API server or the way to it.
    Cluster,
    /// Exit code 4: client and agent speak different protocol versions.
    Version,
}

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Kind::Failure => 1,
            Kind::Usage => 2,
            Kind::Cluster => 3,
            Kind::Version => 4,
        }
    }
}

/// A command's failure.
#[derive(Debug)]
pub struct CommandError {
    pub kind: Kind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
    /// Trying again does not help.
    lasting: bool,
}

impl CommandError {
    /// A failure of `what`; exit code 1.
    pub fn new(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, what: what.into(), source: None, hint: None, lasting: false }
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(what).kind(Kind::Usage)
    }

    /// A library's error as it is; its sources become the causes.
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        let what = error.to_string();
        let mut this = Self::new(what);
        this.source = error.source().map(|s| Flat::of(s).into());
        this
    }

    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn hint_opt(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Trying again does not help: who follows a target gives up.
    #[must_use]
    pub fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    pub fn is_lasting(&self) -> bool {
        self.lasting || matches!(self.kind, Kind::Usage | Kind::Version)
    }

    /// What went wrong and its causes, in one line.
    pub fn line(&self) -> String {
        std::iter::once(self.what.clone()).chain(self.causes()).collect::<Vec<_>>().join(": ")
    }

    /// The same once more, for another who waits.
    pub(crate) fn again(&self) -> Self {
        let mut causes = self.causes();
        causes.reverse();
        let source = causes.into_iter().fold(None, |source, text| Some(Box::new(Flat { text, source })));
        Self {
            kind: self.kind,
            what: self.what.clone(),
            source: source.map(Into::into),
            hint: self.hint.clone(),
            lasting: self.lasting,
        }
    }

    pub fn get_hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The causes from the nearest to the root.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        causes
    }

    /// The failure's first line, without causes or hint.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// True where writing to a closed pipe is the root: whoever read the output has seen enough.
    pub fn is_broken_pipe(&self) -> bool {
        let mut next = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = next {
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<StdoutError> for CommandError {
    fn from(error: StdoutError) -> Self {
        Self::new("standard output cannot be written").cause(error.0)
    }
}

/// Writing to standard output failed.
#[derive(Debug)]
pub struct StdoutError(pub io::Error);

/// A chain of causes whose types are gone, so that it can be kept.
#[derive(Debug)]
struct Flat {
    text: String,
    source: Option<Box<Flat>>,
}

impl Flat {
    fn of(error: &dyn Error) -> Self {
        Self { text: error.to_string(), source: error.source().map(|s| Box::new(Flat::of(s))) }
    }
}

impl fmt::Display for Flat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Flat {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|s| s as &dyn Error)
    }
}

/// The lines for a terminal: `error:`, `caused by:`, `hint:`.
pub fn render(error: &CommandError, colour: bool) -> String {
    let paint = |code: &str, word: &str| match colour {
        true => format!("\x1b[1;{code}m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let mut text = format!("{} {}\n", paint("31", "error:"), plain(&error.what));
    for cause in error.causes() {
        text.push_str(&format!("{} {}\n", paint("33", "caused by:"), plain(&cause)));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("{} {}\n", paint("36", "hint:"), plain(hint)));
    }
    text
}

/// True where standard error is a terminal and nobody asked for plain text.
pub fn colour_on_stderr() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && io::stderr().is_terminal()
}

/// Prints the failure and gives its exit code; a broken pipe is success and says nothing.
pub fn exit(error: &CommandError) -> ExitCode {
    exit_with(error, error.kind.code())
}

/// As [`exit`], where another code tells the failure from a program's.
pub fn exit_with(error: &CommandError, code: u8) -> ExitCode {
    if error.is_broken_pipe() {
        return ExitCode::SUCCESS;
    }
    let _ = io::stderr().write_all(render(error, colour_on_stderr()).as_bytes());
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_from_object_to_remedy() {
        let error = CommandError::new("pid/7 cannot be attached to")
            .cause(io::Error::other("no such process"))
            .hint("ps -e");
        let expected = "error: pid/7 cannot be attached to\ncaused by: no such process\nhint: ps -e\n";
        assert_eq!(render(&error, false), expected);
        let evil = CommandError::new("x").cause("\u{1b}[2J");
        assert_eq!(render(&evil, false), "error: x\ncaused by: \\u{1b}[2J\n");
        assert!(render(&error, true).starts_with("\x1b[1;31merror:\x1b[0m pid/7"));
    }

    #[test]
    fn a_broken_pipe_is_found_in_the_causes() {
        let pipe = CommandError::from(StdoutError(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(pipe.is_broken_pipe());
        assert!(!CommandError::new("x").cause(io::Error::other("y")).is_broken_pipe());
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        assert_eq!([Kind::Failure, Kind::Usage, Kind::Cluster, Kind::Version].map(Kind::code), [1, 2, 3, 4]);
    }
}
