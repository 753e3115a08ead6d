//! What `doctor` finds: one line each, with what mends it. The agent prints its own as text
//! (`devsync-agent doctor`), the client adds those of the laptop and the cluster.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::path::is_bidi;

/// Longest line that is read, in bytes.
const LONGEST: usize = 8 * 1024;
/// Longer texts are cut, in characters.
const CUT: usize = 1200;
/// More findings than this are not read.
const MOST: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Something is less than it could be.
    Warning,
    /// Something will not work.
    Problem,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Ok, Self::Warning, Self::Problem].into_iter().find(|level| level.word() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at, in a word or two.
    pub topic: String,
    pub text: String,
    /// What mends it: a command, or what is to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the agent's answer has a line that is no finding: {0:?}")]
pub struct FindingError(String);

impl Finding {
    pub fn ok(topic: &str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, topic: topic.to_owned(), text: text.into(), fix: None }
    }

    pub fn warning(topic: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::problem(topic, text, fix) }
    }

    pub fn problem(topic: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        let fix = Some(fix.into()).filter(|fix: &String| !fix.is_empty());
        Self { level: Level::Problem, topic: topic.to_owned(), text: text.into(), fix }
    }

    /// Reads what an agent printed.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, FindingError> {
        text.lines().take(MOST).map(Self::parse).collect()
    }

    fn parse(line: &str) -> Result<Self, FindingError> {
        let bad = || FindingError(line.chars().take(80).collect());
        if line.len() > LONGEST {
            return Err(bad());
        }
        let mut fields = line.split('\t');
        let mut field = || fields.next().ok_or_else(bad);
        let level = Level::of(field()?).ok_or_else(bad)?;
        let (topic, text) = (field()?.to_owned(), field()?.to_owned());
        let fix = fields.next().filter(|fix| !fix.is_empty()).map(str::to_owned);
        Ok(Self { level, topic, text, fix })
    }
}

/// The line that reads back; what is no plain text in it is escaped.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fix = self.fix.as_deref().unwrap_or_default();
        let [topic, text, fix] = [self.topic.as_str(), &self.text, fix].map(line);
        write!(f, "{}\t{topic}\t{text}\t{fix}", self.level.word())
    }
}

/// Without what would steer a terminal or end the line.
fn line(text: &str) -> String {
    let escaped = |c: char| match c.is_control() || is_bidi(c) {
        true => c.escape_default().collect(),
        false => String::from(c),
    };
    text.chars().take(CUT).map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_reads_back() {
        let found = [
            Finding::ok("agent", "uid 0"),
            Finding::problem("root", "shut", "give it SYS_PTRACE"),
            Finding::warning("yama", "1", ""),
        ];
        let text: String = found.iter().map(|finding| format!("{finding}\n")).collect();
        assert_eq!(Finding::parse_all(&text).as_deref(), Ok(&found[..]));
    }

    #[test]
    fn an_app_cannot_forge_a_finding() {
        let hostile = Finding::problem("app", "/x\nok\troot\topen\t\x1b[2J", "");
        let read = Finding::parse_all(&hostile.to_string()).expect("reads");
        assert_eq!((read.len(), read[0].level), (1, Level::Problem));
        assert!(!read[0].text.contains(['\x1b', '\n', '\t']), "{read:?}");
        for bad in ["", "fine\ta\tb", "ok\ta", &"x".repeat(LONGEST + 1)] {
            assert!(Finding::parse_all(&format!("{bad}\n")).is_err(), "{bad}");
        }
        assert_eq!(Finding::parse_all(&"ok\ta\tb\n".repeat(MOST + 5)).map(|all| all.len()), Ok(MOST));
    }
}
