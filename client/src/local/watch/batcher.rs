//! When what changed is handed on: a state machine without clock, threads or files.
//!
//! The first save after a pause goes at once; what follows closely is gathered until it is quiet. A file that
//! is being written waits for its close; a delete waits whether something takes its place. While git holds its
//! index, nothing goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use devsync_protocol::path::RelPath;

use super::Rescan;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// No event for so long: what was gathered goes.
    pub quiet: Duration,
    /// The same where more than `burst` paths were gathered.
    pub burst_quiet: Duration,
    pub burst: usize,
    /// Nothing that is settled is held longer.
    pub hold: Duration,
    /// A new name waits so long whether it is only an editor's temporary file.
    pub fresh: Duration,
    /// Git's lock is respected so long.
    pub git_hold: Duration,
    /// More paths than this are looked at by a rescan of their directories.
    pub rescan_from: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(20),
            burst_quiet: Duration::from_millis(50),
            burst: 64,
            hold: Duration::from_secs(1),
            fresh: Duration::from_millis(2),
            git_hold: Duration::from_secs(10),
            rescan_from: 512,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Complete as far as events tell.
    Settled,
    /// Complete, but the name is new.
    Fresh {
        at: Instant,
    },
    /// Open for writing, or renamed from a name that others know.
    Writing {
        new: bool,
        since: Instant,
        last: Instant,
    },
    Gone {
        last: Instant,
    },
}

#[derive(Debug)]
struct Item {
    state: State,
    since: Instant,
    /// A directory to be looked through.
    deep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Free,
    Held {
        since: Instant,
    },
    /// Held for too long to be respected.
    Stale,
}

/// What is handed on at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) paths: BTreeSet<RelPath>,
    pub(crate) rescan: Option<Rescan>,
    pub(crate) first_event: Instant,
    /// Git's lock was held for too long, so that it is not waited for any more.
    pub(crate) lock_ignored: bool,
}

/// Gathers hints into batches.
#[derive(Debug)]
pub(crate) struct Batcher {
    timing: Timing,
    pending: BTreeMap<RelPath, Item>,
    everything: Option<Instant>,
    last: Option<Instant>,
    /// Since when something has been pending.
    first: Option<Instant>,
    /// Something was handed on, and it was not quiet since.
    hot: bool,
    lock: Lock,
}

impl Batcher {
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timing,
            pending: BTreeMap::new(),
            everything: None,
            last: None,
            first: None,
            hot: false,
            lock: Lock::Free,
        }
    }

    /// A name appeared. `complete`: it is a link or the like, which nobody goes on writing.
    pub(crate) fn created(&mut self, now: Instant, path: RelPath, complete: bool) {
        self.put(now, path, |old| match (old, complete) {
            // Something takes the place of what was deleted: no new name.
            (Some(State::Gone { .. }), false) => State::Writing { new: false, since: now, last: now },
            (Some(State::Gone { .. }), true) => State::Settled,
            (_, true) => State::Fresh { at: now },
            (_, false) => State::Writing { new: true, since: now, last: now },
        });
    }

    /// Content changed, and may go on changing.
    pub(crate) fn writing(&mut self, now: Instant, path: RelPath) {
        self.put(now, path, |old| match old {
            Some(State::Writing { new, since, .. }) => State::Writing { new, since, last: now },
            Some(State::Fresh { .. }) => State::Writing { new: true, since: now, last: now },
            _ => State::Writing { new: false, since: now, last: now },
        });
    }

    /// A writer closed the file.
    pub(crate) fn closed(&mut self, now: Instant, path: RelPath) {
        self.put(now, path, |old| match old {
            Some(State::Writing { new: true, .. } | State::Fresh { .. }) => State::Fresh { at: now },
            Some(State::Gone { .. }) => State::Gone { last: now },
            _ => State::Settled,
        });
    }

    /// Mode or times changed.
    pub(crate) fn touched(&mut self, now: Instant, path: RelPath) {
        self.put(now, path, |old| old.unwrap_or(State::Settled));
    }

    /// A complete file took this name. `from_known`: it had a name before that others know, so that the other
    /// half of the move, or what follows it, belongs to this.
    pub(crate) fn moved_to(&mut self, now: Instant, path: RelPath, from_known: bool) {
        self.put(now, path, |_| match from_known {
            true => State::Writing { new: false, since: now, last: now },
            false => State::Settled,
        });
    }

    /// The name is gone. True where it was new in this batch.
    pub(crate) fn gone(&mut self, now: Instant, path: RelPath) -> bool {
        let mut was_new = false;
        self.put(now, path, |old| {
            was_new = matches!(old, Some(State::Fresh { .. } | State::Writing { new: true, .. }));
            State::Gone { last: now }
        });
        was_new
    }

    /// All below a directory is to be looked at; `None` is the root.
    pub(crate) fn rescan(&mut self, now: Instant, dir: Option<RelPath>) {
        match dir {
            Some(dir) => {
                self.put(now, dir.clone(), |_| State::Fresh { at: now });
                if let Some(item) = self.pending.get_mut(&dir) {
                    item.deep = true;
                }
            }
            None => {
                self.note_event(now);
                self.everything.get_or_insert(now);
            }
        }
    }

    /// Whether git holds its index lock now.
    pub(crate) fn set_lock(&mut self, now: Instant, held: bool) {
        match (self.lock, held) {
            (Lock::Free, true) => self.lock = Lock::Held { since: now },
            (Lock::Held { .. } | Lock::Stale, false) => {
                self.lock = Lock::Free;
                // Git often takes the lock again at once: it must be quiet first.
                if self.is_pending() {
                    self.hot = true;
                    self.first = Some(now);
                    self.last = Some(now);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty() || self.everything.is_some()
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.lock, Lock::Held { .. }) && self.is_pending()
    }

    pub(crate) fn last_event(&self) -> Option<Instant> {
        self.last
    }

    /// When [`Batcher::take`] will have something, if no event comes before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        if let Lock::Held { since } = self.lock {
            return Some(since.max(first) + self.timing.git_hold);
        }
        let gathered = (last + self.quiet()).min(first + self.timing.hold);
        if self.hot || self.pending.len() > self.timing.burst || self.everything.is_some() {
            return Some(gathered);
        }
        self.pending.values().map(|item| self.due(item)).min().map(|due| due.min(gathered))
    }

    /// What is to be handed on now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Batch> {
        if self.deadline()? > now {
            return None;
        }
        let lock_ignored = matches!(self.lock, Lock::Held { .. });
        if lock_ignored {
            self.lock = Lock::Stale;
        }
        let mut first_event = now;
        let mut taken = BTreeMap::new();
        for (path, item) in std::mem::take(&mut self.pending) {
            if self.due(&item) <= now {
                first_event = first_event.min(item.since);
                taken.insert(path, item.deep);
            } else {
                self.pending.insert(path, item);
            }
        }
        if let Some(since) = self.everything.take() {
            first_event = first_event.min(since);
            return Some(self.handed_on(now, taken, Some(Rescan::Everything), first_event, lock_ignored));
        }
        if taken.is_empty() {
            // The hold ended, but all of it is still being written: ask again when that changes.
            self.first = Some(now);
            return None;
        }
        Some(self.handed_on(now, taken, None, first_event, lock_ignored))
    }

    fn handed_on(
        &mut self,
        now: Instant,
        taken: BTreeMap<RelPath, bool>,
        rescan: Option<Rescan>,
        first_event: Instant,
        lock_ignored: bool,
    ) -> Batch {
        self.hot = true;
        self.first = (!self.pending.is_empty()).then_some(now);
        let (paths, rescan) = match rescan {
            Some(rescan) => (taken.into_keys().collect(), Some(rescan)),
            None if taken.len() >= self.timing.rescan_from => (BTreeSet::new(), Some(directories(taken))),
            None => {
                let (deep, paths): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(_, deep)| *deep);
                let dirs: BTreeSet<_> = deep.into_iter().map(|(path, _)| path).collect();
                let paths = paths.into_iter().map(|(path, _)| path).collect();
                (paths, (!dirs.is_empty()).then_some(Rescan::Dirs(dirs)))
            }
        };
        Batch { paths, rescan, first_event, lock_ignored }
    }

    fn quiet(&self) -> Duration {
        if self.pending.len() > self.timing.burst { self.timing.burst_quiet } else { self.timing.quiet }
    }

    fn due(&self, item: &Item) -> Instant {
        match item.state {
            State::Settled => item.since,
            State::Fresh { at } => at + self.timing.fresh,
            State::Writing { since, last, .. } => (last + self.timing.quiet).min(since + self.timing.hold),
            State::Gone { last } => last + self.timing.quiet,
        }
    }

    fn put(&mut self, now: Instant, path: RelPath, next: impl FnOnce(Option<State>) -> State) {
        self.note_event(now);
        match self.pending.get_mut(&path) {
            Some(item) => item.state = next(Some(item.state)),
            None => {
                let item = Item { state: next(None), since: now, deep: false };
                self.pending.insert(path, item);
            }
        }
    }

    fn note_event(&mut self, now: Instant) {
        if !self.is_pending() {
            self.first = Some(now);
            self.hot &= self.last.is_some_and(|last| now < last + self.timing.quiet);
        }
        self.last = Some(now);
    }
}

/// The directories that hold the paths of a burst.
fn directories(taken: BTreeMap<RelPath, bool>) -> Rescan {
    let mut dirs = BTreeSet::new();
    for (path, deep) in taken {
        match if deep { Some(path) } else { path.parent() } {
            Some(dir) => dirs.insert(dir),
            None => return Rescan::Everything,
        };
    }
    let nested = |dir: &RelPath| {
        std::iter::successors(dir.parent(), RelPath::parent).any(|above| dirs.contains(&above))
    };
    Rescan::Dirs(dirs.iter().filter(|dir| !nested(dir)).cloned().collect())
}

#[cfg(test)]
#[path = "batcher_tests.rs"]
mod tests;
