//! From a change to the line that tells it: looked at, guarded, sent, said.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use devsync_protocol::path::RelPath;
use tokio::task::block_in_place;

use super::batch::{Outcome, Said};
use super::halt::Halt;
use super::root::{self, Root, Work, scan_error};
use super::{Engine, pace};
use crate::error::CommandError;
use crate::local::{Change, Guard, GuardVerdict};
use crate::report::{self, Event, Hops, Synced, ms};

/// A file that changed while it was read is looked at again after this long, if no event says so before.
const AGAIN: Duration = Duration::from_millis(150);
/// Files that go are gone when no other change follows for this long, and after the other time anyway.
const LULL: Duration = Duration::from_millis(100);
const LULL_WITHIN: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) async fn on_change(&mut self, index: usize, change: Option<Change>) -> Result<(), Halt> {
        let Some(change) = change else {
            return Err(CommandError::new(format!(
                "{} is not watched any more",
                root::show(&self.roots[index].dir)
            ))
            .into());
        };
        for note in &change.notes {
            self.reporter.event(&Event::Note { text: note.to_string(), hint: note.hint() });
        }
        if !self.is_in_step() {
            // Everything is looked at before anything is sent again.
            return Ok(());
        }
        let more_go = self.going_until.is_some();
        if more_go || self.waits_for_build(index, &change) {
            self.hold_back(index, change);
            if more_go {
                self.wait_for_lull();
            }
            return Ok(());
        }
        let changes = BTreeMap::from([(index, change)]);
        self.save(changes).await
    }

    pub(super) fn hold_back(&mut self, index: usize, change: Change) {
        let held = self.held_back.entry(index).or_insert_with(|| pace::nothing(change.first_event));
        pace::merge(held, change);
    }

    /// Another look once nothing happened for a while: a removal of everything begins with a few files.
    pub(super) fn wait_for_lull(&mut self) {
        let now = tokio::time::Instant::now();
        let until = *self.going_until.get_or_insert(now + LULL_WITHIN);
        self.again_at = Some(until.min(now + LULL));
    }

    /// Another look at files that changed while they were read, and at those that went.
    pub(super) async fn look_again(&mut self) -> Result<(), Halt> {
        self.again_at = None;
        let (parked, changes) =
            std::mem::take(&mut self.held_back).into_iter().partition(|(i, c)| self.waits_for_build(*i, c));
        self.held_back = parked;
        let saved = self.save(changes).await;
        self.going_until = None;
        saved
    }

    /// Sends what really changed at these paths.
    pub(super) async fn save(&mut self, changes: BTreeMap<usize, Change>) -> Result<(), Halt> {
        let started = Instant::now();
        let first_event = changes.values().map(|c| c.first_event).min().unwrap_or(started);
        let mut works: Vec<Work> = self.roots.iter().map(|_| Work::default()).collect();
        for (index, change) in &changes {
            if let Some(work) = self.refresh(*index, change).await? {
                works[*index] = work;
            }
        }
        for (root, work) in self.roots.iter_mut().zip(&mut works) {
            root.take_left(work);
        }
        let looked = started.elapsed();
        if works.iter().all(Work::is_empty) {
            return Ok(());
        }
        if let Err(halt) = self.check_executable(&works).await {
            return self.keep_unrunnable(&works, halt);
        }
        let wire = self.handle.sent() + self.handle.received();
        self.owe(&works);
        let mut outcome = self.sender.send(&mut self.roots, works).await?;
        let asked = std::mem::take(&mut self.owed);
        let total = first_event.elapsed();
        outcome.times.read += looked;
        self.after_batch(&outcome);
        if outcome.files == 0 && outcome.deleted == 0 && outcome.paths.is_empty() {
            return Ok(());
        }
        let watch = started.saturating_duration_since(first_event);
        let hops = hops(&outcome, watch, total);
        let wire_bytes = self.handle.sent() + self.handle.received() - wire;
        self.restarts.forgive();
        let restarts = match outcome.batch {
            Some(_) => self.restarts.ask(&asked, outcome.batch, first_event, hops),
            None => self.restarts.is_due(),
        };
        self.chores.touched(&asked);
        self.drain_events()?;
        self.say_synced(outcome, hops, wire_bytes, false, restarts);
        // Where it has been quiet for long enough already the restart goes right behind the commit.
        if self.is_quiet() {
            self.send_restart().await?;
        }
        Ok(())
    }

    /// What could not run is said and kept back: the next build may be better, and the app runs on meanwhile.
    fn keep_unrunnable(&mut self, works: &[Work], halt: Halt) -> Result<(), Halt> {
        let Halt::Failed(error) = halt else { return Err(halt) };
        if self.job.once {
            return Err(error.into());
        }
        self.reporter.error(&error);
        for (root, work) in self.roots.iter_mut().zip(works) {
            work.changed.keys().for_each(|path| root.leave(path, false));
            work.deleted.iter().for_each(|path| root.leave(path, true));
        }
        Ok(())
    }

    /// Keeps in mind that these were sent, until the restart that they may need was asked for.
    pub(super) fn owe(&mut self, works: &[Work]) {
        self.owed.extend(works.iter().flat_map(Work::paths).cloned());
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.restarts.is_due()
            && self.chores.are_done()
            && self.roots.iter().filter_map(Root::quiet).all(|q| pace::is_quiet(&q, super::QUIET))
    }

    /// What is to be sent of one root's change; asks where many deletes would follow.
    pub(super) async fn refresh(&mut self, index: usize, change: &Change) -> Result<Option<Work>, Halt> {
        let root = &mut self.roots[index];
        let update = block_in_place(|| root.refresh(change)).map_err(scan_error)?;
        let work = root.work(&update);
        if self.going_until.is_none() && pace::more_may_go(&work) {
            self.hold_back(index, change.clone());
            self.wait_for_lull();
            return Ok(None);
        }
        self.say_skipped(&update.skipped);
        self.roots[index].skipped.extend(update.skipped.iter().cloned());
        for path in &update.changing {
            self.try_again(index, path.clone());
        }
        let root = &mut self.roots[index];
        let guard = Guard { accept_deletes: self.job.accept_deletes };
        let deletes = work.deleted.iter().filter(|path| root.known.0.contains_key(*path)).count();
        let verdict = root.deletes.judge(guard, Instant::now(), deletes, root.known.0.len());
        if let GuardVerdict::Ask { deletes, of } = verdict {
            let place = root::show(&root.dir);
            self.confirm_deletes(&place, deletes, of).await?;
            self.roots[index].deletes.accept(Instant::now());
        }
        let root = &mut self.roots[index];
        for path in &update.hidden {
            root.held.remove(path);
        }
        update.apply_to(&mut root.known);
        Ok(Some(work))
    }

    pub(super) async fn confirm_deletes(&mut self, dir: &str, deletes: usize, of: usize) -> Result<(), Halt> {
        self.reporter.end_line();
        let question = format!("{deletes} of {of} files are gone from {dir}: delete them in the pod too?");
        match crate::ask::confirm(&question).await {
            Some(true) => Ok(()),
            Some(false) => Err(CommandError::new("ended without deleting anything in the pod").into()),
            None => Err(CommandError::new(format!("{deletes} of {of} files are gone from {dir}"))
                .cause(
                    "that many deletes are not made without being asked for; nothing was deleted in the pod",
                )
                .hint("if they are meant: devsync attach --accept-deletes")
                .into()),
        }
    }

    pub(super) fn try_again(&mut self, index: usize, path: RelPath) {
        let change = self.held_back.entry(index).or_insert_with(|| pace::nothing(Instant::now()));
        change.paths.insert(path);
        self.again_at.get_or_insert_with(|| tokio::time::Instant::now() + AGAIN);
    }

    /// Says what went wrong and keeps in mind what is to be tried again.
    pub(super) fn after_batch(&mut self, outcome: &Outcome) {
        for said in &outcome.problems {
            let event = match said {
                Said::Conflict { path } => Event::Conflict { path: path.clone() },
                Said::Problem { path, cause, hint } => {
                    Event::Problem { path: path.clone(), cause: cause.clone(), hint: hint.clone() }
                }
            };
            self.reporter.event(&event);
        }
        if !outcome.problems.is_empty() {
            self.publish();
        }
        if outcome.left_out > 0 {
            let left = report::count(outcome.left_out, "path");
            let cause = outcome.cause.clone().unwrap_or_else(|| "the pod did not take it".to_owned());
            let hint = (!self.job.once).then(|| "the next save tries again".to_owned());
            self.reporter.event(&Event::Note { text: format!("{left} left out: {cause}"), hint });
            self.left_because = Some(cause);
        }
        for (index, path) in &outcome.again {
            self.try_again(*index, path.clone());
        }
    }

    pub(super) fn say_synced(
        &mut self,
        outcome: Outcome,
        hops: Hops,
        wire_bytes: u64,
        initial: bool,
        restarts: bool,
    ) {
        self.publish();
        self.board.add_save();
        let Outcome { files, deleted, bytes, paths, in_place, .. } = outcome;
        let synced =
            Synced { initial, files, deleted, bytes, wire_bytes, paths, in_place, ms: hops, restarts };
        self.reporter.event(&Event::Synced(synced));
    }
}

pub(super) fn hops(outcome: &Outcome, watch: Duration, total: Duration) -> Hops {
    let times = outcome.times;
    Hops {
        watch: Some(ms(watch)),
        read: Some(ms(times.read)),
        delta: Some(ms(times.delta)),
        wire: Some(ms(times.wire)),
        write: Some(ms(times.write)),
        restart: None,
        ready: None,
        total: ms(total),
    }
}
