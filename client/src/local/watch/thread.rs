//! The watcher's thread: events in, hints to the batcher, batches out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use devsync_protocol::path::RelPath;
use tokio::sync::{mpsc, watch};

use super::batcher::{Batcher, Timing};
use super::dirs::Dirs;
use super::events::{Raw, Sink, What};
use super::poll::{self, Polled};
use super::{Activity, Change, Note};
use crate::local::platform::{self, Type};
use crate::local::rules::Rules;
use crate::local::scan::check_root;

/// How often git's lock is looked for while a batch waits for it; its own event usually comes first.
const LOCK_RECHECK: Duration = Duration::from_millis(100);
/// How soon a batch that found no room with the caller is offered again.
const RETRY: Duration = Duration::from_millis(5);
/// Events taken in before the next look whether something is due.
const ROUND: usize = 4_096;

pub(crate) struct Worker {
    root: PathBuf,
    rules: Arc<Rules>,
    batcher: Batcher,
    dirs: Dirs,
    sink: Sink,
    changes: mpsc::Sender<Change>,
    activity: watch::Sender<Activity>,
    notes: Vec<Note>,
    /// The last name that was moved away: its cookie, and whether others may know it.
    moved_from: Option<(usize, bool)>,
    lost: bool,
    next_poll: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(
        root: &Path,
        rules: Arc<Rules>,
        timing: Timing,
        sink: Sink,
        changes: mpsc::Sender<Change>,
        activity: watch::Sender<Activity>,
    ) -> Self {
        Self {
            root: root.to_path_buf(),
            dirs: Dirs::new(root, rules.clone(), sink.clone()),
            rules,
            batcher: Batcher::new(timing),
            sink,
            changes,
            activity,
            notes: Vec::new(),
            moved_from: None,
            lost: false,
            next_poll: None,
        }
    }

    pub(crate) fn run(mut self, incoming: &Receiver<Raw>, ready: &SyncSender<()>) {
        self.dirs.reset();
        self.check_root();
        let _ = ready.send(());
        loop {
            self.after_round();
            if !self.hand_on() {
                return;
            }
            let raw = match self.wake_at() {
                None => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => incoming.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match raw {
                Ok(raw) => {
                    let more = std::iter::from_fn(|| incoming.try_recv().ok());
                    for raw in std::iter::once(raw).chain(more).take(ROUND) {
                        if !self.handle(raw) {
                            return;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.poll(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut at = self.batcher.deadline();
        if self.batcher.is_held() {
            at = at.map(|at| at.min(now + LOCK_RECHECK));
        }
        if self.changes.capacity() == 0 {
            at = at.map(|at| at.max(now + RETRY));
        }
        [at, self.next_poll].into_iter().flatten().min()
    }

    /// What must be right before something may be handed on.
    fn after_round(&mut self) {
        if self.sink.overflowed.swap(false, Ordering::AcqRel) {
            self.overflow();
        }
        self.notes.append(&mut self.dirs.take_notes());
        let polls = self.lost || !self.dirs.poller.is_empty();
        match (polls, self.next_poll) {
            (true, None) => self.next_poll = Some(Instant::now() + poll::INTERVAL),
            (false, Some(_)) => self.next_poll = None,
            _ => {}
        }
        if self.batcher.is_pending() {
            let held = self.dirs.locks.iter().any(|lock| lock.exists());
            self.batcher.set_lock(Instant::now(), held);
        }
    }

    /// Sends what is due. False when nobody listens any more.
    fn hand_on(&mut self) -> bool {
        let permit = match self.changes.try_reserve() {
            Ok(permit) => permit,
            // The caller is busy: what is due is gathered on.
            Err(mpsc::error::TrySendError::Full(())) => return true,
            Err(mpsc::error::TrySendError::Closed(())) => return false,
        };
        let now = Instant::now();
        let batch = self.batcher.take(now);
        if let Some(batch) = &batch
            && batch.lock_ignored
        {
            let locks = self.dirs.locks.iter().filter(|lock| lock.exists());
            self.notes.extend(locks.map(|lock| Note::LockIgnored { lock: lock.clone() }));
        }
        let notes = std::mem::take(&mut self.notes);
        match batch {
            Some(b) => {
                permit.send(Change { paths: b.paths, rescan: b.rescan, first_event: b.first_event, notes })
            }
            None if !notes.is_empty() => {
                permit.send(Change { paths: Default::default(), rescan: None, first_event: now, notes });
            }
            None => {}
        }
        let activity = Activity { last_event: self.batcher.last_event(), pending: self.batcher.is_pending() };
        self.activity.send_if_modified(|old| std::mem::replace(old, activity) != activity);
        true
    }

    fn handle(&mut self, raw: Raw) -> bool {
        match raw {
            Raw::Stop => return false,
            Raw::Overflow => self.overflow(),
            Raw::Failed(error) => {
                tracing::debug!(%error, "a watch failed");
                self.overflow();
            }
            Raw::Event { what, path } => self.event(what, &path),
        }
        true
    }

    /// Events were lost: what is watched is as doubtful as what is there.
    fn overflow(&mut self) {
        self.notes.push(Note::Overflow);
        self.start_over();
    }

    fn start_over(&mut self) {
        self.rules.invalidate();
        self.dirs.reset();
        self.batcher.rescan(Instant::now(), None);
    }

    fn check_root(&mut self) {
        let lost = check_root(&self.root).is_err();
        if lost != self.lost {
            self.lost = lost;
            self.notes.push(if lost { Note::RootLost } else { Note::RootBack });
            self.start_over();
        }
    }

    fn event(&mut self, what: What, path: &Path) {
        match platform::relative(&self.root, path) {
            Ok(Some(path)) => self.below(what, path),
            Ok(None) => match what {
                What::Removed | What::MovedFrom { .. } => {
                    let was_lost = self.lost;
                    self.check_root();
                    if !self.lost && !was_lost {
                        // Another directory took its place: the watches are on the old one.
                        self.start_over();
                    }
                }
                _ => {}
            },
            // Git's directory beside the root; its lock is looked at after each round.
            Err(()) => {}
        }
    }

    fn below(&mut self, what: What, path: RelPath) {
        let now = Instant::now();
        if let What::MovedFrom { .. } | What::Removed = what {
            self.dirs.forget(&path);
            self.left(now, what, &path);
            return;
        }
        if let (What::Written | What::Closed, false) = (what, self.rules.is_rule_file(&path)) {
            if !self.rules.verdict(&path, false).is_hidden() {
                match what {
                    What::Closed => self.batcher.closed(now, path),
                    _ => self.batcher.writing(now, path),
                }
            }
            return;
        }
        let abs = platform::absolute(&self.root, Some(&path));
        match std::fs::symlink_metadata(&abs) {
            Ok(meta) => self.there(now, what, path, &meta),
            // Gone again, perhaps to the name it was made for: that it was new matters then.
            Err(_) if what == What::Created && !self.rules.is_rule_file(&path) => {
                if !self.rules.verdict(&path, false).is_hidden() {
                    self.batcher.created(now, path, false);
                }
            }
            Err(_) => self.left(now, What::Removed, &path),
        }
    }

    /// Something happened to a name that exists.
    fn there(&mut self, now: Instant, what: What, path: RelPath, meta: &std::fs::Metadata) {
        let kind = platform::type_of(meta.file_type());
        if self.rules.verdict(&path, kind == Type::Dir).is_hidden() {
            return;
        }
        self.rules_changed(now, &path);
        let complete = kind != Type::File || platform::has_other_names(meta);
        match what {
            What::Created | What::MovedTo { .. } | What::Changed if kind == Type::Dir => {
                self.dirs.add_tree(Some(path.clone()));
                self.batcher.rescan(now, Some(path));
            }
            What::Created => self.batcher.created(now, path, complete),
            What::MovedTo { cookie } => {
                let known = self.moved_from.is_some_and(|(from, known)| Some(from) == cookie && known);
                self.batcher.moved_to(now, path, known);
            }
            What::Closed => self.batcher.closed(now, path),
            What::Touched => self.batcher.touched(now, path),
            _ => self.batcher.writing(now, path),
        }
    }

    /// A name is gone, or was for a moment.
    fn left(&mut self, now: Instant, what: What, path: &RelPath) {
        self.rules_changed(now, path);
        let counted = self.rules.may_have_counted(path);
        let known = counted && !self.batcher.gone(now, path.clone());
        if let What::MovedFrom { cookie: Some(cookie) } = what {
            self.moved_from = Some((cookie, known));
        }
        let abs = platform::absolute(&self.root, Some(path));
        if counted && std::fs::symlink_metadata(abs).is_ok_and(|meta| meta.is_dir()) {
            // Made anew before its end was heard of; the new one's watch may have gone with the old name.
            self.dirs.add_tree(Some(path.clone()));
            self.batcher.rescan(now, Some(path.clone()));
        }
    }

    fn rules_changed(&mut self, now: Instant, path: &RelPath) {
        if !self.rules.is_rule_file(path) {
            return;
        }
        self.rules.invalidate();
        self.dirs.drop_hidden();
        self.dirs.add_tree(path.parent());
        self.batcher.rescan(now, path.parent());
    }

    fn poll(&mut self) {
        let now = Instant::now();
        if self.next_poll.is_none_or(|at| now < at) {
            return;
        }
        self.next_poll = Some(now + poll::INTERVAL);
        if self.lost || self.dirs.poller.has_root() {
            self.check_root();
        }
        for (path, polled) in self.dirs.poller.poll() {
            match polled {
                Polled::Changed => self.below(What::Changed, path),
                Polled::NewDir => self.below(What::Created, path),
                Polled::Gone => self.below(What::Removed, path),
            }
        }
    }
}
