//! The state of an attach for who asks from elsewhere: kept up to date by the engine, read at any moment.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::follow::Link;
use crate::error::CommandError;
use crate::session::Handle;

/// The state of an attach.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub target: String,
    pub state: State,
    pub app: String,
    pub pid: u32,
    pub since: String,
    pub directory: String,
    pub sync: Vec<StatusRoot>,
    pub restart: String,
    pub build: Option<String>,
    pub saves: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Paths that changed in the pod and were kept.
    pub conflicts: Vec<String>,
}

/// Whether what is saved arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// There was no session yet.
    Connecting,
    /// The trees are compared, and what differs is sent.
    Syncing,
    /// A build must succeed before anything is sent.
    Building,
    Attached,
    /// For so long, and tried so often; the next try is under way where `retry_in_ms` is missing.
    Disconnected {
        for_ms: u64,
        cause: String,
        attempt: u32,
        retry_in_ms: Option<u64>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusRoot {
    pub from: String,
    pub to: String,
    pub entries: usize,
}

/// Where the state is kept.
#[derive(Clone)]
pub struct Board(Arc<Mutex<Kept>>);

struct Kept {
    status: Status,
    /// The session's, whose bytes are counted.
    handle: Option<Handle>,
    outage: Option<Outage>,
}

/// An outage by this process's clock.
struct Outage {
    since: Instant,
    next_try: Option<Instant>,
}

impl Board {
    pub fn new(target: &str, since: &str, directory: &Path) -> Self {
        let status = Status {
            target: target.to_owned(),
            state: State::Connecting,
            app: String::new(),
            pid: 0,
            since: since.to_owned(),
            directory: directory.display().to_string(),
            sync: Vec::new(),
            restart: String::new(),
            build: None,
            saves: 0,
            sent_bytes: 0,
            received_bytes: 0,
            conflicts: Vec::new(),
        };
        Self(Arc::new(Mutex::new(Kept { status, handle: None, outage: None })))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as it is now.
    pub fn read(&self) -> Status {
        let kept = self.kept();
        let mut status = kept.status.clone();
        if let Some(handle) = &kept.handle {
            status.sent_bytes += handle.sent();
            status.received_bytes += handle.received();
        }
        if let (State::Disconnected { for_ms, retry_in_ms, .. }, Some(outage)) =
            (&mut status.state, &kept.outage)
        {
            let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            *for_ms = ms(outage.since.elapsed());
            *retry_in_ms = outage.next_try.map(|at| ms(at.saturating_duration_since(Instant::now())));
        }
        status
    }

    /// A session ended: its bytes stay counted.
    pub(super) fn add_traffic(&self, handle: &Handle) {
        let mut kept = self.kept();
        if kept.handle.take().is_some() {
            kept.status.sent_bytes += handle.sent();
            kept.status.received_bytes += handle.received();
        }
    }

    pub(super) fn add_save(&self) {
        self.kept().status.saves += 1;
    }
}

impl Engine {
    /// Puts the state on the board.
    pub(super) fn publish(&self) {
        let roots = self.places().into_iter().zip(&self.roots);
        let sync = roots
            .map(|(place, root)| StatusRoot { from: place.from, to: place.to, entries: root.held.len() })
            .collect();
        let conflicts = self.roots.iter().flat_map(|r| r.conflicts.iter().map(|p| r.shown(p))).collect();
        let (state, outage) = self.state();
        let mut kept = self.board.kept();
        kept.handle = self.link.is_up().then(|| self.handle.clone());
        kept.outage = outage;
        let old = &mut kept.status;
        (old.app, old.pid) = (self.job.app.name(), self.job.app.pid);
        (old.state, old.sync, old.conflicts) = (state, sync, conflicts);
        old.restart = self.restarts.mode().to_string();
        old.build = self.job.build.as_ref().map(crate::build::Build::words);
    }

    fn state(&self) -> (State, Option<Outage>) {
        match &self.link {
            Link::Down(outage) => {
                let error = CommandError::from(outage.cause.clone());
                let cause = error.line();
                let state =
                    State::Disconnected { for_ms: 0, cause, attempt: outage.attempt, retry_in_ms: None };
                (state, Some(Outage { since: outage.since, next_try: outage.next_try() }))
            }
            Link::Up { .. } if !self.stale => (State::Attached, None),
            Link::Up { .. } if self.waits_for_any_build() => (State::Building, None),
            Link::Up { .. } => (State::Syncing, None),
        }
    }
}
