//! Watches a sync root and says in batches which paths may have changed.
//!
//! Events are hints: a [`Change`] names paths to look at ([`crate::local::Scanner::refresh`]), never what is
//! there. One thread of its own owns the watches and the [`batcher`]; it sleeps without a timer while nothing
//! happens.

mod batcher;
mod dirs;
mod events;
mod poll;
mod thread;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devsync_protocol::path::RelPath;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

pub use batcher::Timing;
use events::{Raw, Sink};

use super::rules::Rules;

/// Events that wait for the watcher's thread; more are an overflow, and so a rescan.
const MAX_EVENTS: usize = 65_536;
/// Batches that wait for the caller; while it is full, changes go on being gathered.
const MAX_CHANGES: usize = 4;

#[derive(Debug, Error)]
pub enum WatchError {
    #[error("cannot start the thread that watches {root}")]
    Thread {
        root: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the thread that watches {root} ended")]
    Ended { root: String },
}

/// What is to be looked at in whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rescan {
    Everything,
    /// These directories and all below them.
    Dirs(BTreeSet<RelPath>),
}

/// Something the user should know, said once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The system has no watch or instance left: what is not watched is polled.
    WatchLimit { sysctl: &'static str, value: String, cause: String },
    /// One directory cannot be watched, and is polled.
    PolledInstead { dir: PathBuf, cause: String },
    /// Events were lost, so that everything is looked at again.
    Overflow,
    /// Git's lock was there for too long: a crashed git may have left it.
    LockIgnored { lock: PathBuf },
    /// The root is gone, or is no directory any more.
    RootLost,
    /// The root is there again.
    RootBack,
}

impl Note {
    /// The command that would help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Note::WatchLimit { sysctl, value, .. } => {
                let more = value.parse::<u64>().unwrap_or(65_536).max(1).saturating_mul(4);
                Some(format!("sudo sysctl {sysctl}={more}"))
            }
            Note::LockIgnored { lock } => Some(format!("rm {}", super::scan::shown(lock))),
            _ => None,
        }
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Note::WatchLimit { sysctl, value, cause } => {
                write!(
                    f,
                    "the system's limit {sysctl} ({value}) is reached, so that some directories are polled every second: {cause}"
                )
            }
            Note::PolledInstead { dir, cause } => {
                write!(f, "{} cannot be watched and is polled every second: {cause}", super::scan::shown(dir))
            }
            Note::Overflow => f.write_str("the system lost file events; everything is looked at again"),
            Note::LockIgnored { lock } => {
                write!(f, "{} was held for 10 s and is not waited for any more", super::scan::shown(lock))
            }
            Note::RootLost => f.write_str("the directory is gone; nothing is synced until it is back"),
            Note::RootBack => f.write_str("the directory is back"),
        }
    }
}

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub paths: BTreeSet<RelPath>,
    pub rescan: Option<Rescan>,
    /// When the first event of this batch was seen.
    pub first_event: Instant,
    pub notes: Vec<Note>,
}

/// How busy the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    pub last_event: Option<Instant>,
    /// Something is gathered that was not handed on yet.
    pub pending: bool,
}

/// Tells when the files are quiet, so that a restart is not made on half of a save-all.
#[derive(Debug, Clone)]
pub struct Quiet(watch::Receiver<Activity>);

impl Quiet {
    /// What is known now.
    pub fn activity(&self) -> Activity {
        *self.0.borrow()
    }

    /// Returns when nothing is gathered and no event came for `window`, or when the watcher ended. May be
    /// dropped at any await. A change that was handed on meanwhile is in the channel by then: take it first.
    pub async fn wait(&mut self, window: Duration) {
        loop {
            let Activity { last_event, pending } = *self.0.borrow_and_update();
            let left = last_event.map_or(Duration::ZERO, |last| window.saturating_sub(last.elapsed()));
            if !pending && left.is_zero() {
                return;
            }
            let changed = self.0.changed();
            let ended = match pending {
                true => changed.await.is_err(),
                false => tokio::time::timeout(left, changed).await.is_ok_and(|c| c.is_err()),
            };
            if ended {
                return;
            }
        }
    }
}

/// Watches one root until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: SyncSender<Raw>,
    thread: Option<JoinHandle<()>>,
    activity: watch::Receiver<Activity>,
}

impl Watcher {
    /// Sets all watches and returns: whatever happens from now on is in a later [`Change`]. Blocks for the time
    /// that takes (some ms per thousand directories). `root` must be absolute and free of links
    /// ([`super::scan::real_root`]). The first change may hold notes only.
    pub fn start(
        root: &Path,
        rules: Arc<Rules>,
        timing: Timing,
    ) -> Result<(Self, mpsc::Receiver<Change>), WatchError> {
        let (events, incoming) = sync_channel(MAX_EVENTS);
        let (changes, receiver) = mpsc::channel(MAX_CHANGES);
        let (activity_in, activity) = watch::channel(Activity::default());
        let sink = Sink { events: events.clone(), overflowed: Arc::new(AtomicBool::new(false)) };
        let (ready, is_ready) = sync_channel(1);
        let worker = thread::Worker::new(root, rules, timing, sink, changes, activity_in);
        let shown = super::scan::shown(root);
        let thread = std::thread::Builder::new()
            .name("devsync-watch".to_owned())
            .spawn(move || worker.run(&incoming, &ready))
            .map_err(|source| WatchError::Thread { root: shown.clone(), source })?;
        is_ready.recv().map_err(|_| WatchError::Ended { root: shown })?;
        Ok((Self { stop: events, thread: Some(thread), activity }, receiver))
    }

    pub fn quiet(&self) -> Quiet {
        Quiet(self.activity.clone())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.stop.send(Raw::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
