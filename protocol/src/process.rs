//! One process as `devsync-agent ps` tells it: a line of fields between tabs, whatever the process calls itself.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::path::display;

/// Longest line that is read, in bytes.
const LONGEST: usize = 8 * 1024;
/// More processes than this are neither told nor read.
pub const MOST: usize = 2000;
/// More arguments of one process than this are not told.
const WORDS: usize = 64;
/// More ports of one process than this are not told.
const PORTS: usize = 64;
/// Longer arguments, all of one process together, are cut; in bytes.
const ARGUMENTS: usize = 1024;
/// Begins the last line where processes are left out.
const LEFT: &str = "left";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// In the agent's PID namespace.
    pub pid: u32,
    pub parent: u32,
    /// Effective.
    pub uid: u32,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Time on a processor since its start.
    pub cpu_ms: u64,
    /// Since its start.
    pub age_ms: u64,
    /// TCP ports that it listens on.
    pub ports: Vec<u16>,
    /// The container's id in its cgroup.
    pub container: Option<String>,
    /// The inode number of its mount namespace, where that may be read.
    pub mount_namespace: Option<u64>,
    /// It belongs to devsync's agent.
    pub agent: bool,
    /// Its executable in its own root, with what is no text escaped.
    pub exe: String,
    /// Escaped and cut.
    pub argv: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the agent's answer has a line that is no process: {0:?}")]
pub struct ProcessError(String);

/// Fields in their order, and the arguments.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, parent, uid, rss, cpu_ms, age_ms, agent, .. } = self;
        let ports: Vec<String> = self.ports.iter().take(PORTS).map(u16::to_string).collect();
        let namespace = self.mount_namespace.map(|inode| inode.to_string()).unwrap_or_default();
        let container = display(self.container.as_deref().unwrap_or_default().as_bytes());
        let (ports, agent, exe) = (ports.join(","), u8::from(*agent), display(self.exe.as_bytes()));
        write!(
            f,
            "{pid}\t{parent}\t{uid}\t{rss}\t{cpu_ms}\t{age_ms}\t{agent}\t{ports}\t{namespace}\t{container}\t{exe}"
        )?;
        let mut left = ARGUMENTS;
        for word in self.argv.iter().take(WORDS) {
            let word = display(word.as_bytes());
            let Some(rest) = left.checked_sub(word.len()) else { return write!(f, "\t…") };
            left = rest;
            write!(f, "\t{word}")?;
        }
        Ok(())
    }
}

/// The line that ends a list without all of them.
pub fn left_out(count: usize) -> String {
    format!("{LEFT}\t{count}")
}

/// Reads what an agent printed: the processes, and how many were left out.
pub fn parse_all(text: &str) -> Result<(Vec<Process>, usize), ProcessError> {
    let mut all = Vec::new();
    for line in text.lines().take(MOST) {
        let bad = || ProcessError(line.chars().take(80).collect());
        if let Some(count) = line.strip_prefix(LEFT) {
            return Ok((all, count.trim().parse().map_err(|_| bad())?));
        }
        all.push(parse(line).ok_or_else(bad)?);
    }
    Ok((all, 0))
}

fn parse(line: &str) -> Option<Process> {
    let mut fields = Some(line).filter(|line| line.len() <= LONGEST)?.split('\t');
    let mut field = || fields.next();
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Some(Process {
        pid: field()?.parse().ok()?,
        parent: field()?.parse().ok()?,
        uid: field()?.parse().ok()?,
        rss: field()?.parse().ok()?,
        cpu_ms: field()?.parse().ok()?,
        age_ms: field()?.parse().ok()?,
        agent: field()? == "1",
        ports: field()?
            .split(',')
            .filter(|port| !port.is_empty())
            .map(|port| port.parse().ok())
            .collect::<Option<_>>()?,
        mount_namespace: some(field()?).map(|inode| inode.parse()).transpose().ok()?,
        container: some(field()?),
        exe: field()?.to_owned(),
        argv: fields.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        Process {
            pid: 7,
            parent: 1,
            uid: 65532,
            rss: 4096,
            cpu_ms: 10,
            age_ms: 2000,
            ports: vec![80, 8080],
            container: Some("ab".repeat(32)),
            mount_namespace: Some(4_026_531_840),
            agent: true,
            exe: "/app/x".to_owned(),
            argv: vec!["x".to_owned(), String::new(), "a b".to_owned()],
        }
    }

    #[test]
    fn what_is_told_reads_back() {
        let bare = Process {
            ports: Vec::new(),
            container: None,
            mount_namespace: None,
            argv: Vec::new(),
            ..process()
        };
        let text = format!("{}\n{bare}\n{}\n", process(), left_out(3));
        assert_eq!(parse_all(&text), Ok((vec![process(), bare], 3)));
        for cut in 0..process().to_string().len() {
            // Nothing panics; a line that is cut within its arguments is a process still.
            let _ = parse_all(&process().to_string()[..cut]);
        }
    }

    #[test]
    fn an_app_cannot_forge_a_process() {
        let evil =
            Process { exe: "/x\n1\t1".to_owned(), argv: vec!["\x1b[2J\t\nleft\t9".repeat(90)], ..process() };
        let (read, left) = parse_all(&evil.to_string()).expect("reads");
        assert_eq!((read.len(), left, read[0].argv.len()), (1, 0, 1));
        assert!(!format!("{}{}", read[0].exe, read[0].argv[0]).contains(['\x1b', '\n', '\t']));
        let many = Process { ports: (1..=u16::MAX).collect(), ..process() };
        assert_eq!(parse_all(&many.to_string()).expect("reads").0[0].ports.len(), PORTS);
        let long = Process { argv: vec!["y".repeat(150); 100], ..process() };
        assert!(long.to_string().len() < 2 * ARGUMENTS);
        for bad in ["", "x", "1\t2\t3", "left\tmany", &"1\t".repeat(LONGEST)] {
            assert!(parse_all(&format!("{bad}\n")).is_err(), "{bad}");
        }
    }
}
