//! Which process is the app: named by its PID, or the root-most one of the container beside the agent.
//! It chooses among a snapshot of processes; `identity` makes sure of the one that was chosen.

pub mod container;
mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::sys::proc::ProcError;
use crate::target::shown::Shown;

pub use snapshot::{Process, Snapshot};

/// What a person may say about the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Pid(u32),
    /// A container's id, or at least 12 digits of its beginning.
    Container(String),
    /// The inode number of a mount namespace.
    MountNamespace(u64),
    /// The only other container of the PID namespace.
    Only,
}

/// The chosen process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The `devsync-run` that started the app.
    pub supervisor: Option<u32>,
    /// The app; the supervisor itself while it holds a crashed app.
    pub app: u32,
    pub container: Option<String>,
}

impl Target {
    /// The process whose root is worked in: the supervisor outlives the app's restarts.
    pub fn root_pid(&self) -> u32 {
        self.supervisor.unwrap_or(self.app)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    #[error("{0} is no target: auto, pid/N, container/ID or mnt/INODE")]
    BadQuery(Shown),
    #[error("process {0} is not here")]
    NoProcess(u32),
    #[error("process {0} is the agent itself")]
    Itself(u32),
    #[error("no process of an app is here{}", unreadable(*.hidden))]
    NothingHere { hidden: usize },
    #[error("no container here has the id {0}")]
    NoContainer(Shown),
    #[error("no process here is in the mount namespace {0}")]
    NoNamespace(u64),
    #[error("several apps are here: {}", list(.0))]
    Ambiguous(Vec<Process>),
    #[error(transparent)]
    Proc(#[from] ProcError),
}

impl FindError {
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoProcess(_) => Some("`ps -e` in the agent's PID namespace shows which there are"),
            Self::NothingHere { .. } => Some("the pod needs shareProcessNamespace: true"),
            Self::Ambiguous(_) => Some("name one: pid/N"),
            Self::NoContainer(_) => Some(
                "a container that starts anew has a new id: attach again; and its processes must be seen here",
            ),
            Self::Itself(_) => Some("name the app's process"),
            _ => None,
        }
    }
}

/// As a person says it, and reads back.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid/{pid}"),
            Self::Container(id) => write!(f, "container/{id}"),
            Self::MountNamespace(inode) => write!(f, "mnt/{inode}"),
            Self::Only => write!(f, "auto"),
        }
    }
}

impl FromStr for Query {
    type Err = FindError;

    fn from_str(text: &str) -> Result<Self, FindError> {
        let bad = || FindError::BadQuery(text.as_bytes().into());
        if text == "auto" {
            return Ok(Self::Only);
        }
        match text.split_once('/').ok_or_else(bad)? {
            ("pid", n) => n.parse().map(Self::Pid).map_err(|_| bad()),
            ("mnt", n) => n.parse().map(Self::MountNamespace).map_err(|_| bad()),
            ("container", id) if is_container_id(id) => Ok(Self::Container(id.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// Looks at the processes and chooses.
pub fn find(query: &Query) -> Result<Target, FindError> {
    select(&Snapshot::take()?, query)
}

/// Chooses among `snapshot`.
pub fn select(snapshot: &Snapshot, query: &Query) -> Result<Target, FindError> {
    let chosen = match query {
        Query::Pid(pid) if *pid == snapshot.own => return Err(FindError::Itself(*pid)),
        Query::Pid(pid) => snapshot.get(*pid).ok_or(FindError::NoProcess(*pid))?,
        Query::Container(id) => {
            let all = groups(snapshot, |p| p.container.as_ref().is_some_and(|c| c.starts_with(id.as_str())));
            one(&all)?.ok_or_else(|| FindError::NoContainer(id.as_bytes().into()))?
        }
        Query::MountNamespace(inode) => {
            let all = groups(snapshot, |p| p.mount_namespace == Some(*inode));
            one(&all)?.ok_or(FindError::NoNamespace(*inode))?
        }
        Query::Only => {
            let all = groups(snapshot, |_| true);
            let hidden = snapshot.processes.iter().filter(|p| Place::of(p).is_none()).count();
            one(&all)?.ok_or(FindError::NothingHere { hidden })?
        }
    };
    Ok(with_supervisor(snapshot, chosen))
}

/// What makes processes one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Container(String),
    MountNamespace(u64),
}

impl Place {
    fn of(process: &Process) -> Option<Self> {
        let container = process.container.clone().map(Self::Container);
        container.or_else(|| process.mount_namespace.map(Self::MountNamespace))
    }
}

/// The root-most process of each container that fits, without the agent's own, pause and other agents.
fn groups(snapshot: &Snapshot, fits: impl Fn(&Process) -> bool) -> Vec<&Process> {
    let own = snapshot.get(snapshot.own);
    let own_place = own.and_then(Place::of);
    let own_namespace = own.and_then(|p| p.mount_namespace);
    let mut places: BTreeMap<Place, Vec<&Process>> = BTreeMap::new();
    for process in snapshot.processes.iter().filter(|p| fits(p)) {
        let beside_us = own_namespace.is_some() && process.mount_namespace == own_namespace;
        if let Some(place) =
            Place::of(process).filter(|place| !beside_us && Some(place) != own_place.as_ref())
        {
            places.entry(place).or_default().push(process);
        }
    }
    places.values().filter_map(|members| top(members)).filter(|p| !is_infrastructure(p)).collect()
}

/// The oldest process whose parent is outside: the container's first. One that was started in the container
/// later, by an exec, has its parent outside too.
fn top<'s>(members: &[&'s Process]) -> Option<&'s Process> {
    let is_root = |p: &&&Process| !members.iter().any(|m| m.pid == p.parent);
    members.iter().filter(is_root).min_by_key(|p| (p.start_time, p.pid)).copied()
}

fn one<'s>(candidates: &[&'s Process]) -> Result<Option<&'s Process>, FindError> {
    match candidates {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => Err(FindError::Ambiguous(several.iter().map(|p| (*p).clone()).collect())),
    }
}

fn is_infrastructure(process: &Process) -> bool {
    let program = process.argv.first().and_then(|a| a.rsplit(|b| *b == b'/').next());
    let pause = process.argv.len() == 1 && program == Some(b"pause") && process.name == b"pause";
    pause || process.name == b"devsync-agent"
}

/// devsync-run and the app are parent and child, whichever of them was chosen.
fn with_supervisor(snapshot: &Snapshot, chosen: &Process) -> Target {
    let is_run = |p: &Process| p.name == b"devsync-run";
    let container = chosen.container.clone();
    if is_run(chosen) {
        let children = snapshot.processes.iter().filter(|p| p.parent == chosen.pid);
        // It adopts orphans; the app leads a process group of its own.
        let app = children.min_by_key(|p| (p.process_group != p.pid, p.start_time, p.pid));
        return Target { supervisor: Some(chosen.pid), app: app.map_or(chosen.pid, |p| p.pid), container };
    }
    let parent = snapshot.get(chosen.parent).filter(|p| is_run(p));
    Target { supervisor: parent.map(|p| p.pid), app: chosen.pid, container }
}

fn is_container_id(id: &str) -> bool {
    (12..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit())
}

fn unreadable(hidden: usize) -> String {
    if hidden == 0 { String::new() } else { format!(" ({hidden} processes could not be looked at)") }
}

fn list(processes: &[Process]) -> String {
    let one = |p: &Process| {
        let argv = p.argv.join(&b' ');
        let text = if argv.is_empty() { Shown::from(p.name.as_slice()) } else { Shown(argv) };
        let container = p.container.as_deref().and_then(|c| c.get(..12));
        container.map_or_else(
            || format!("pid/{} {text}", p.pid),
            |c| format!("pid/{} {text} (container {c})", p.pid),
        )
    };
    processes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
