//! What a user sees of a session: one line per save, or one JSON event per line.
//!
//! Only formats and prints; knows nothing of sessions.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use devsync_protocol::restart::{AppState, RestartMode};
use serde::Serialize;

use crate::cli::{Output, OutputArgs};
use crate::error::{CommandError, colour_on_stderr, render};

mod json;
mod plain;
mod words;

pub use json::{json, json_pretty};
pub use plain::{plain, plain_line, terminal_line};
pub use words::{bytes, count, millis};

/// Last lines of a build's output that are kept until it ends.
const BUILD_LINES: usize = 2000;

/// The hops of a save, in milliseconds; those that did not happen are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Hops {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<f64>,
    pub total: f64,
}

/// A duration as the events give it: milliseconds to the microsecond.
pub fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Attached {
        /// How the target is reached.
        route: String,
        app: AppFacts,
        agent: String,
        sync: Vec<Place>,
        restart: String,
        build: Option<String>,
        because: String,
    },
    Synced(Synced),
    /// The session was lost; another one is tried for.
    Disconnected {
        cause: String,
    },
    /// The next try is the `attempt`-th; `cause`: why the last one failed.
    Reconnecting {
        attempt: u32,
        in_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// There is another session; `ms` after the loss. A sync follows.
    Reconnected {
        app: String,
        pid: u32,
        ms: f64,
    },
    Restarted(Restarted),
    RestartFailed {
        what: String,
        cause: String,
        hint: String,
        app: String,
        #[serde(skip)]
        state: Option<AppState>,
    },
    Ready {
        ports: Vec<u16>,
        missing: Vec<u16>,
        ms: Hops,
    },
    Conflict {
        path: String,
    },
    Problem {
        path: String,
        cause: String,
        hint: Option<String>,
    },
    Skipped {
        path: String,
        cause: String,
    },
    Note {
        text: String,
        hint: Option<String>,
    },
    /// What is done in the cluster.
    Step {
        text: String,
    },
    Building {
        command: String,
    },
    BuildOutput {
        line: String,
    },
    Built {
        ms: f64,
    },
    BuildFailed {
        command: String,
        cause: String,
    },
    /// A command of `on_change` runs in the container.
    CommandStarted {
        command: String,
    },
    CommandOutput {
        command: String,
        line: String,
    },
    CommandEnded {
        command: String,
        ms: f64,
    },
    CommandFailed {
        command: String,
        cause: String,
        hint: Option<String>,
    },
    WouldSync {
        path: String,
        change: &'static str,
    },
    Error {
        what: String,
        causes: Vec<String>,
        hint: Option<String>,
    },
    Ended {
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize)]
pub struct AppFacts {
    pub name: String,
    pub pid: u32,
    pub exe: Option<String>,
    pub argv: Vec<String>,
    pub cwd: Option<String>,
    pub uid: u32,
    pub gid: u32,
    pub machine: String,
    /// Facts and refusals, as a person reads them.
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Place {
    pub from: String,
    pub to: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Synced {
    /// The first one of a session.
    pub initial: bool,
    pub files: usize,
    pub deleted: usize,
    /// Size of the files' contents.
    pub bytes: u64,
    /// Bytes that travelled, both ways.
    pub wire_bytes: u64,
    /// At most 20 of them.
    pub paths: Vec<String>,
    pub in_place: Vec<String>,
    pub ms: Hops,
    /// Whether a restart follows, whose words belong on the same line.
    #[serde(skip)]
    pub restarts: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Restarted {
    pub app: String,
    #[serde(serialize_with = "as_text")]
    pub mode: RestartMode,
    pub old_pid: u32,
    pub new_pid: u32,
    pub count: u32,
    pub ms: Hops,
}

fn as_text<S: serde::Serializer>(mode: &RestartMode, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(mode)
}

/// An event, and whose it is.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// Prints events. Several of them share standard output: each writes whole lines.
pub struct Reporter {
    /// The target that the events are of.
    target: Option<String>,
    /// Before each line, where there are several targets.
    prefix: String,
    format: Output,
    quiet: bool,
    /// A line that may still grow; on a terminal its beginning is already shown.
    line: String,
    on_terminal: bool,
    /// What the running build said, shown where it fails.
    build_lines: Vec<String>,
    /// Standard output cannot be written any more.
    failed: Option<io::Error>,
}

impl Reporter {
    pub fn new(args: &OutputArgs) -> Self {
        Self {
            target: None,
            prefix: String::new(),
            format: args.output,
            quiet: args.quiet,
            line: String::new(),
            on_terminal: io::stdout().is_terminal(),
            build_lines: Vec::new(),
            failed: None,
        }
    }

    /// For the events of one target.
    #[must_use]
    pub fn of(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// For the events of one target of several: each line begins with its name.
    #[must_use]
    pub fn one_of_several(self, target: &str) -> Self {
        // A line that grows would be cut by the others'.
        Self { prefix: format!("[{target}] "), on_terminal: false, ..self.of(target) }
    }

    pub fn is_one_of_several(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// True where a progress bar has a place.
    pub fn shows_progress(&self) -> bool {
        self.prefix.is_empty() && self.format == Output::Text && !self.quiet && io::stderr().is_terminal()
    }

    pub fn is_json(&self) -> bool {
        self.format == Output::Json
    }

    pub fn event(&mut self, event: &Event) {
        match self.format {
            Output::Json => self.json(event),
            Output::Text => self.text(event),
        }
    }

    /// A failure that does not end the command.
    pub fn error(&mut self, error: &CommandError) {
        match self.format {
            Output::Json => self.json(&Event::Error {
                what: error.what().to_owned(),
                causes: error.causes(),
                hint: error.get_hint().map(str::to_owned),
            }),
            Output::Text => {
                self.end_line();
                self.warn(&render(error, colour_on_stderr()));
            }
        }
    }

    /// A line of a build's output: shown where the build fails, for machines at once.
    pub fn build_line(&mut self, line: &str) {
        match self.format {
            Output::Json => self.json(&Event::BuildOutput { line: line.to_owned() }),
            Output::Text => self.build_lines.push(line.to_owned()),
        }
        let len = self.build_lines.len();
        if len > 2 * BUILD_LINES {
            self.build_lines.drain(..len - BUILD_LINES);
        }
    }

    /// Shows what the build that failed had said.
    pub fn build_failed(&mut self) {
        self.end_line();
        for line in std::mem::take(&mut self.build_lines) {
            self.warn(&format!("{line}\n"));
        }
    }

    /// The write error that ended the output, once.
    pub fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    fn json(&mut self, event: &Event) {
        let told = Told { event, target: self.target.as_deref() };
        let mut line = json(&told);
        line.push('\n');
        self.print(&line);
    }

    fn text(&mut self, event: &Event) {
        match event {
            Event::Building { .. } | Event::Built { .. } => self.build_lines.clear(),
            _ => {}
        }
        match event {
            Event::Synced(synced) => {
                self.end_line();
                self.grow(&words::synced(synced));
                if !synced.restarts {
                    self.end_line();
                }
            }
            Event::Restarted(restarted) => self.grow(&words::restarted(restarted)),
            Event::Ready { missing, ports, ms } => {
                if let Some(text) = words::ready(ports, missing, ms) {
                    self.grow(&text);
                }
                self.end_line();
            }
            event => {
                let Some(said) = words::said(event) else { return };
                self.end_line();
                match said {
                    words::Said::Plain(text) if !self.quiet => self.write(&format!("{}\n", plain(&text))),
                    words::Said::Plain(_) => {}
                    words::Said::Warning(text) => self.warn(&format!("{}\n", plain(&text))),
                }
            }
        }
    }

    /// Adds to the line that is open.
    fn grow(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let text = plain_line(text);
        let joined = if self.line.is_empty() { text } else { format!(" · {text}") };
        self.line.push_str(&joined);
        if self.on_terminal {
            self.write(&joined);
        }
    }

    /// Ends the line that is open, if one is.
    pub fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        match self.on_terminal {
            true => self.write("\n"),
            false => self.write(&format!("{line}\n")),
        }
    }

    /// Whole lines, or what continues one on a terminal.
    fn write(&mut self, text: &str) {
        self.print(&self.prefixed(text));
    }

    fn warn(&self, lines: &str) {
        let _ = io::stderr().write_all(self.prefixed(lines).as_bytes());
    }

    fn prefixed(&self, lines: &str) -> String {
        match self.prefix.is_empty() {
            true => lines.to_owned(),
            false => lines.split_inclusive('\n').map(|line| format!("{}{line}", self.prefix)).collect(),
        }
    }

    fn print(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            self.failed.get_or_insert(error);
        }
    }
}

/// What a restart says, for who asked for it from elsewhere.
pub fn restarted_words(restarted: &Restarted) -> String {
    words::restarted(restarted)
}

/// What an app that became ready says.
pub fn ready_words(event: &Event) -> Option<String> {
    match event {
        Event::Ready { ports, missing, ms } => words::ready(ports, missing, ms),
        _ => None,
    }
}
