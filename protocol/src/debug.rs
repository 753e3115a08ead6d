//! What the agent tells of an app that is to be debugged, as lines of text: `devsync-agent debug look` prints it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::build_id::BuildId;
use crate::path::display;

/// Longest line that is read, in bytes.
const LONGEST: usize = 8 * 1024;

/// The app, as a debugger sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debuggee {
    /// In the agent's PID namespace.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// Its executable's path in its own root, with what is no text escaped.
    pub exe: String,
    /// Its working directory, as its path.
    pub cwd: Option<String>,
    pub build_id: BuildId,
    /// The Go that built it.
    pub go: Option<String>,
    /// The version of the delve beside it, where Go built it.
    pub delve: Option<String>,
    /// The debugger that holds it: its pid and name.
    pub tracer: Option<(u32, String)>,
    /// Why it may not be traced, and what helps.
    pub refused: Option<(String, String)>,
    /// The tools that the agent has.
    pub tools: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the agent's answer has no usable line {0:?}")]
pub struct DebuggeeError(&'static str);

impl fmt::Display for Debuggee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &str| writeln!(f, "{name} {}", display(value.as_bytes()));
        line("pid", &self.pid.to_string())?;
        line("uid", &self.uid.to_string())?;
        line("gid", &self.gid.to_string())?;
        line("exe", &self.exe)?;
        for (name, value) in [
            ("cwd", &self.cwd),
            ("build-id", &self.build_id.gnu),
            ("go-build-id", &self.build_id.go),
            ("go", &self.go),
            ("delve", &self.delve),
        ] {
            value.iter().try_for_each(|value| line(name, value))?;
        }
        if let Some((pid, name)) = &self.tracer {
            line("tracer", &format!("{pid} {name}"))?;
        }
        if let Some((cause, hint)) = &self.refused {
            line("refused", cause)?;
            line("hint", hint)?;
        }
        self.tools.iter().try_for_each(|tool| line("tool", tool))
    }
}

impl FromStr for Debuggee {
    type Err = DebuggeeError;

    /// Lines of other names are passed over, so that a later agent may say more.
    fn from_str(text: &str) -> Result<Self, DebuggeeError> {
        let all = |name: &'static str| {
            let lines = text.lines().filter(|line| line.len() <= LONGEST);
            lines.filter_map(move |line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
        };
        let one = |name| all(name).next();
        let number = |name| one(name).and_then(|n| n.parse().ok()).ok_or(DebuggeeError(name));
        let tracer = one("tracer").map(|line| {
            let (pid, name) = line.split_once(' ').ok_or(DebuggeeError("tracer"))?;
            Ok((pid.parse().map_err(|_| DebuggeeError("tracer"))?, name.to_owned()))
        });
        Ok(Self {
            pid: number("pid")?,
            uid: number("uid")?,
            gid: number("gid")?,
            exe: one("exe").ok_or(DebuggeeError("exe"))?,
            cwd: one("cwd"),
            build_id: BuildId { gnu: one("build-id"), go: one("go-build-id") },
            go: one("go"),
            delve: one("delve"),
            tracer: tracer.transpose()?,
            refused: one("refused").map(|cause| (cause, one("hint").unwrap_or_default())),
            tools: all("tool").collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_reads_back() {
        let told = Debuggee {
            pid: 7,
            uid: 1,
            gid: 2,
            exe: "/app/x y".to_owned(),
            cwd: Some("/app".to_owned()),
            build_id: BuildId { gnu: Some("ab".to_owned()), go: None },
            go: Some("go1.19.8".to_owned()),
            delve: Some("1.20.2".to_owned()),
            tracer: Some((9, "gdb".to_owned())),
            refused: Some(("no".to_owned(), "do".to_owned())),
            tools: vec!["gdbserver".to_owned(), "dlv".to_owned()],
        };
        assert_eq!(told.to_string().parse(), Ok(told.clone()));
        let hostile = Debuggee { exe: "/x\npid 1".to_owned(), ..told };
        assert_eq!(hostile.to_string().parse::<Debuggee>().map(|d| d.pid), Ok(7));
        assert_eq!("pid x\n".parse::<Debuggee>(), Err(DebuggeeError("pid")));
    }
}
