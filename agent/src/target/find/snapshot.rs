//! What a look at all processes shows: plain data, so that choosing among them can be tested without them.

use super::super::access::inspect_process;
use super::container;
use crate::sys::proc::{self, Namespace, ProcDir, ProcError, Stat};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub process_group: u32,
    pub start_time: u64,
    /// The executable's file name; the command's name where the link is not readable.
    pub name: Vec<u8>,
    /// The first of them.
    pub argv: Vec<Vec<u8>>,
    pub container: Option<String>,
    /// None where it is not readable.
    pub mount_namespace: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The agent's own process id.
    pub own: u32,
    /// Without kernel threads and zombies.
    pub processes: Vec<Process>,
}

impl Snapshot {
    /// Processes that end meanwhile are left out.
    pub fn take() -> Result<Self, ProcError> {
        let mut processes: Vec<Process> = proc::pids()?.into_iter().filter_map(look).collect();
        processes.sort_by_key(|p| (p.start_time, p.pid));
        Ok(Self { own: std::process::id(), processes })
    }

    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.processes.iter().find(|p| p.pid == pid)
    }
}

fn look(pid: u32) -> Option<Process> {
    let proc = ProcDir::open(pid).ok()?;
    let stat: Stat = proc.stat().ok()?;
    if stat.is_kernel_thread() || stat.is_zombie() {
        return None;
    }
    let exe = inspect_process(&proc, || proc.exe()).ok();
    let name = exe.as_deref().and_then(|path| path.rsplit(|b| *b == b'/').next()).map(<[u8]>::to_vec);
    Some(Process {
        pid,
        parent: stat.parent,
        process_group: stat.process_group,
        start_time: stat.start_time,
        name: name.or_else(|| proc.comm().ok()).unwrap_or_default(),
        argv: proc.first_words().unwrap_or_default(),
        container: proc.cgroup().ok().and_then(|text| container::id(&text)),
        mount_namespace: inspect_process(&proc, || proc.namespace(Namespace::Mount)).ok(),
    })
}
