//! `devsync-agent ps`: the processes of the app's mount namespace, or of all containers that share the process
//! namespace, as lines of text. It only looks; what may not be looked at is left empty.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use devsync_protocol::process::{MOST, Process, left_out};
use procfs::process::{FDTarget, Process as Proc, Stat};
use procfs::{Current, Uptime};
use thiserror::Error;

use crate::sys::ids::{FsIdGuard, FsIds};
use crate::sys::proc::ProcDir;
use crate::target::find::{self, FindError, Query, Snapshot};

/// The client reads no more than this, in bytes.
const LONGEST: usize = 240 * 1024;
/// Descriptors of one process that are looked at for its sockets.
const DESCRIPTORS: usize = 16 * 1024;

#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
    /// The processes of all containers that are seen here, not only the app's.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Error)]
pub enum PsError {
    #[error("{error}{}", .error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default())]
    Find { error: FindError },
    #[error("standard output")]
    Output(#[from] io::Error),
}

/// Prints a line for each process, oldest first.
pub fn run(args: &PsArgs) -> Result<(), PsError> {
    let found = |error| PsError::Find { error };
    let snapshot = Snapshot::take().map_err(|error| found(error.into()))?;
    let app = find::select(&snapshot, &args.target).map_err(found)?.app;
    let place = snapshot.get(app).and_then(|app| app.mount_namespace);
    let shown: Vec<&find::Process> = snapshot
        .processes
        .iter()
        .filter(|process| {
            args.all || process.pid == app || (place.is_some() && process.mount_namespace == place)
        })
        .collect();
    let seen = Seen::new(&snapshot, app, place);
    let mut out = io::stdout().lock();
    let mut written = 0;
    for (number, process) in shown.iter().enumerate() {
        // One that has ended meanwhile is left out.
        let Some(line) = seen.look(process).map(|process| format!("{process}\n")) else { continue };
        written += line.len();
        if written > LONGEST || number + 1 >= MOST {
            writeln!(out, "{}", left_out(shown.len() - number))?;
            break;
        }
        out.write_all(line.as_bytes())?;
    }
    Ok(out.flush()?)
}

/// What is read once for all of them.
struct Seen {
    /// Inodes of listening sockets, and their ports.
    listening: HashMap<u64, u16>,
    uptime_ms: u64,
    own: u32,
    /// The agent's mount namespace, where that is not the app's too.
    own_namespace: Option<u64>,
}

impl Seen {
    fn new(snapshot: &Snapshot, app: u32, place: Option<u64>) -> Self {
        let own_namespace = snapshot.get(snapshot.own).and_then(|own| own.mount_namespace);
        Self {
            listening: listening(app),
            uptime_ms: Uptime::current().map_or(0, |up| (up.uptime * 1000.0) as u64),
            own: snapshot.own,
            own_namespace: own_namespace.filter(|own| Some(*own) != place),
        }
    }

    fn look(&self, process: &find::Process) -> Option<Process> {
        let proc = Proc::new(i32::try_from(process.pid).ok()?).ok()?;
        let stat = proc.stat().ok().filter(|stat| stat.starttime == process.start_time)?;
        let dir = ProcDir::open(process.pid).ok()?;
        let status = dir.status().ok()?;
        let ids = FsIds { uid: status.uids[1], gid: status.gids[1] };
        let exe = as_its_user(ids, || dir.exe().ok());
        let namespace = process.mount_namespace;
        Some(Process {
            pid: process.pid,
            parent: process.parent,
            uid: ids.uid,
            rss: stat.rss.saturating_mul(procfs::page_size()),
            cpu_ms: milliseconds(stat.utime.saturating_add(stat.stime)),
            age_ms: self.age(&stat),
            ports: self.ports(&proc, ids),
            container: process.container.clone(),
            mount_namespace: namespace,
            agent: process.pid == self.own || (namespace.is_some() && namespace == self.own_namespace),
            exe: text(&exe.unwrap_or_else(|| process.name.clone())),
            argv: process.argv.iter().map(|word| text(word)).collect(),
        })
    }

    fn age(&self, stat: &Stat) -> u64 {
        self.uptime_ms.saturating_sub(milliseconds(stat.starttime))
    }

    fn ports(&self, proc: &Proc, ids: FsIds) -> Vec<u16> {
        if self.listening.is_empty() {
            return Vec::new();
        }
        let sockets = as_its_user(ids, || {
            let all = proc.fd().ok()?.take(DESCRIPTORS).filter_map(Result::ok);
            let sockets: HashSet<u64> = all
                .filter_map(|fd| match fd.target {
                    FDTarget::Socket(inode) => Some(inode),
                    _ => None,
                })
                .collect();
            Some(sockets).filter(|sockets| !sockets.is_empty())
        });
        let sockets = sockets.unwrap_or_default();
        let mut ports: Vec<u16> =
            sockets.iter().filter_map(|inode| self.listening.get(inode).copied()).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

/// In the app's network namespace, which the containers of a pod share.
fn listening(app: u32) -> HashMap<u64, u16> {
    let Some(proc) = i32::try_from(app).ok().and_then(|app| Proc::new(app).ok()) else {
        return HashMap::new();
    };
    let entries = [proc.tcp(), proc.tcp6()].into_iter().filter_map(Result::ok).flatten();
    let listens = entries.filter(|entry| entry.state == procfs::net::TcpState::Listen);
    listens.map(|entry| (entry.inode, entry.local_address.port())).collect()
}

fn milliseconds(ticks: u64) -> u64 {
    ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1)
}

/// With the agent's own ids, and where they do not do with those of the process.
fn as_its_user<T>(ids: FsIds, look: impl Fn() -> Option<T>) -> Option<T> {
    look().or_else(|| {
        let _ids = FsIdGuard::enter(ids).ok()?;
        look()
    })
}
/// As text; what is dangerous in it is escaped where it is written.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
