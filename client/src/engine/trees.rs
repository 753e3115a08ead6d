//! The sync that begins a session: trees compared by their digests, the place checked, what differs sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Place, Reply, Request};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::block_in_place;

use super::batch::Outcome;
use super::halt::Halt;
use super::root::{Root, Work, scan_error};
use super::save::hops;
use super::{End, Engine, pace};
use crate::compare::{self, Needs};
use crate::elf;
use crate::error::CommandError;
use crate::local::{Guard, GuardVerdict, Skipped};
use crate::mapping::Source;
use crate::report::{Event, Hops, count};
use crate::session::{Call, SessionError};

impl Engine {
    /// Compares and sends what differs: the first sync, and that of each later session. `Some`: there is nothing more
    /// to do.
    pub(super) async fn sync_trees(&mut self) -> Result<Option<End>, Halt> {
        let began = Instant::now();
        let wire = self.handle.sent() + self.handle.received();
        let initial = !self.was_synced;
        self.look_at_all().await?;
        self.own_what_was_lost().await?;
        let mut works = Vec::new();
        if self.job.guessed && initial {
            works.extend(self.check_place().await?);
        }
        for index in works.len()..self.roots.len() {
            works.push(self.compare(index).await?);
        }
        if self.job.options.dry_run {
            self.show(&works);
            return Ok(Some(End::Shown));
        }
        self.check_executable(&works).await?;
        let is_owed = !self.owed.is_empty();
        self.owe(&works);
        self.sender.progress = self.progress(&works);
        let sent = self.sender.send(&mut self.roots, works).await;
        if let Some(progress) = self.sender.progress.take() {
            progress.finish_and_clear();
        }
        let mut outcome = sent?;
        self.after_batch(&outcome);
        self.copy_bases();
        let total = began.elapsed();
        outcome.times.read =
            total.saturating_sub(outcome.times.delta + outcome.times.wire + outcome.times.write);
        let hops = hops(&outcome, std::time::Duration::ZERO, total);
        (self.stale, self.was_synced) = (false, true);
        let wire_bytes = self.handle.sent() + self.handle.received() - wire;
        // What the agent said first is here by now: whether the app waits for this sync.
        self.drain_events()?;
        let changed = is_owed || outcome.batch.is_some() || self.restarts.waits();
        let restarts = self.ask_for_restart(changed, &outcome, began, hops);
        self.say_synced(outcome, hops, wire_bytes, initial, restarts);
        Ok(None)
    }

    /// The restart that the batch and those before it ask for, unless the app does not outlive restarts.
    fn ask_for_restart(&mut self, changed: bool, outcome: &Outcome, since: Instant, hops: Hops) -> bool {
        let owed = std::mem::take(&mut self.owed);
        if changed {
            self.chores.touched(&owed);
        }
        match self.restarts.held() {
            _ if !changed => self.restarts.is_due(),
            Some(why) => {
                let text = format!("{why}: its files are in place, but it is not restarted again by itself");
                let hint = "the next save restarts it, or `devsync restart`".to_owned();
                self.reporter.event(&Event::Note { text, hint: Some(hint) });
                false
            }
            None => self.restarts.ask(&owed, outcome.batch, since, hops),
        }
    }

    /// Opens, watches and scans every mapping; what is known already is looked at again.
    async fn look_at_all(&mut self) -> Result<(), Halt> {
        self.held_back.clear();
        (self.again_at, self.going_until) = (None, None);
        for index in 0..self.roots.len() {
            self.look_again_at(index)?;
        }
        for mapping in self.job.mappings.clone().into_iter().skip(self.roots.len()) {
            let id = self.next_root;
            self.next_root += 1;
            let mut root = Root::open(id, mapping, &self.job.excludes, &self.job.project)?;
            // `/` is only looked at where nobody said that it is the place: the search will find another one.
            let looks_only = self.job.guessed && matches!(&root.mapping.place, Place::At(p) if p.is_root());
            if !looks_only {
                self.open_in_pod(&mut root).await?;
            }
            if !self.job.once && !self.job.options.dry_run {
                block_in_place(|| root.watch())?;
            }
            block_in_place(|| root.scan())?;
            self.say_skipped(&root.skipped);
            self.roots.push(root);
        }
        Ok(())
    }

    /// Everything, since nothing was sent for a while and this machine may have slept.
    fn look_again_at(&mut self, index: usize) -> Result<(), Halt> {
        let root = &mut self.roots[index];
        let update = block_in_place(|| root.refresh(&pace::everything())).map_err(scan_error)?;
        update.apply_to(&mut root.known);
        root.skipped.extend(update.skipped.iter().cloned());
        self.say_skipped(&update.skipped);
        for path in update.changing {
            self.try_again(index, path);
        }
        Ok(())
    }

    pub(super) fn say_skipped(&mut self, skipped: &[Skipped]) {
        for skipped in skipped {
            let (path, cause) = (devsync_protocol::path::display(&skipped.path), skipped.why.to_string());
            self.reporter.event(&Event::Skipped { path, cause });
        }
    }

    /// A batch without an answer may have been committed, and its record not: the agent is told what we wrote, so that
    /// it does not take our own files for changes of the pod.
    async fn own_what_was_lost(&mut self) -> Result<(), Halt> {
        if self.lost.is_empty() {
            return Ok(());
        }
        for (index, root) in self.roots.iter().enumerate() {
            let mut tree = root.known.clone();
            let lost = self.lost.iter().filter(|((of, _), _)| *of == index);
            let lost: BTreeMap<_, _> = lost.map(|((_, path), node)| (path.clone(), node.clone())).collect();
            if lost.is_empty() || root.place.is_none() {
                continue;
            }
            let in_pod: BTreeSet<_> = lost.keys().map(|path| root.to_pod(path).parent()).collect();
            tree.0.extend(lost);
            let tree = root.as_in_pod(tree);
            let dirs = tree.dir_digests();
            let (mut differing, _) = compare::compare(&self.handle, root.id, &dirs).await?;
            let asked = (0u32..).zip(&dirs).filter(|(_, dir)| in_pod.contains(&dir.dir)).map(|(n, _)| n);
            differing.extend(asked);
            let entries = root.manifest(&tree, &dirs, &differing);
            // What it needs is asked for with what is here now.
            compare::needs(&self.handle, root.id, &entries).await?;
        }
        self.lost.clear();
        Ok(())
    }

    pub(super) async fn open_in_pod(&mut self, root: &mut Root) -> Result<(), Halt> {
        let options = root.options(&self.job.options);
        let open = Request::Open { root: root.id, place: root.mapping.place.clone(), options };
        match self.handle.call(Call::Open, &open).await? {
            Reply::Opened { path, notes, .. } => {
                for text in notes {
                    self.reporter.event(&Event::Note { text, hint: None });
                }
                root.place = Some(path);
                Ok(())
            }
            _ => Err(SessionError::Unexpected { call: "open", reply: "something else" }.into()),
        }
    }

    /// What the pod needs of one root: nothing where the digests are equal, which is known after one trip.
    pub(super) async fn compare(&mut self, index: usize) -> Result<Work, Halt> {
        let root = &mut self.roots[index];
        let tree = root.tree_for_pod();
        let dirs = tree.dir_digests();
        let (differing, gone) = compare::compare(&self.handle, root.id, &dirs).await?;
        if differing.is_empty() && !gone && !root.options(&self.job.options).delete {
            root.hold_all();
            root.conflicts.clear();
            return Ok(Work::default());
        }
        let entries = root.manifest(&tree, &dirs, &differing);
        let needs = compare::needs(&self.handle, root.id, &entries).await?;
        self.take_needs(index, needs).await
    }

    async fn take_needs(&mut self, index: usize, mut needs: Needs) -> Result<Work, Halt> {
        let root = &mut self.roots[index];
        let (deletes, extras) = (std::mem::take(&mut needs.deletes), std::mem::take(&mut needs.extras));
        let extras = if root.options(&self.job.options).delete { extras } else { Vec::new() };
        // Those that were told before are not told again by a later session.
        let is_new = |path: &&RelPath| !root.conflicts.contains(&root.to_laptop(path));
        let conflicts: Vec<_> = needs.conflicts.iter().filter(is_new).cloned().collect();
        let mut work = root.take_needs(needs, self.job.options.overwrite);
        work.deleted = root.may_delete([deletes, extras].concat());
        let of = root.held.len() + work.changed.len() + work.deleted.len();
        let guard = Guard { accept_deletes: self.job.accept_deletes };
        let (dir, shown) =
            (super::root::show(&root.dir), conflicts.iter().map(|p| root.shown(&root.to_laptop(p))));
        let shown: Vec<_> = shown.collect();
        for path in shown {
            self.reporter.event(&Event::Conflict { path });
        }
        let verdict = self.roots[index].deletes.judge(guard, Instant::now(), work.deleted.len(), of);
        if let GuardVerdict::Ask { deletes, of } = verdict
            && !self.job.options.dry_run
        {
            self.confirm_deletes(&dir, deletes, of).await?;
            self.roots[index].deletes.accept(Instant::now());
        }
        Ok(work)
    }

    /// An executable that could not run where the app runs is refused before anything is sent.
    pub(super) async fn check_executable(&mut self, works: &[Work]) -> Result<(), Halt> {
        for (root, work) in self.roots.iter().zip(works) {
            let Source::File { path, name } = &root.mapping.source else { continue };
            let (Some(place), Some(exe), false) = (&root.place, &self.job.app.exe, work.changed.is_empty())
            else {
                continue;
            };
            let Ok(full) = place.join(name) else { continue };
            if full == *exe {
                refuse_unrunnable(&self.handle, path, &full, &self.job.app.machine).await?;
            }
        }
        Ok(())
    }

    fn show(&mut self, works: &[Work]) {
        for (root, work) in self.roots.iter().zip(works) {
            for (path, node) in &work.changed {
                let change = match (root.held.get(path), node) {
                    (Some(_), _) => "change the mode of",
                    (None, Node::Dir { .. }) => "make",
                    _ if root.signatures.contains_key(path) => "update",
                    _ => "add",
                };
                self.reporter.event(&Event::WouldSync { path: root.shown(path), change });
            }
            for path in &work.deleted {
                self.reporter.event(&Event::WouldSync { path: root.shown(path), change: "delete" });
            }
        }
        let n: usize = works.iter().map(|w| w.changed.len() + w.deleted.len()).sum();
        let reason = format!("{} would be changed; nothing was written", count(n, "entry"));
        self.reporter.event(&Event::Ended { reason });
    }

    fn progress(&self, works: &[Work]) -> Option<ProgressBar> {
        let sizes = works.iter().flat_map(|w| w.changed.values()).map(|node| match node {
            Node::File { size, .. } => *size,
            _ => 0,
        });
        let total: u64 = sizes.sum();
        if !self.reporter.shows_progress() || total < 1_000_000 {
            return None;
        }
        let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Some(ProgressBar::new(total).with_style(style))
    }

    /// Keeps copies of the larger files that the pod has now, for the deltas of later saves.
    fn copy_bases(&self) {
        if self.job.once {
            return;
        }
        let mut wanted = Vec::new();
        for root in &self.roots {
            for (path, node) in &root.held {
                if let Node::File { size, digest, .. } = node
                    && super::base::Bases::wants(*size)
                {
                    wanted.push((root.absolute(path), *digest));
                }
            }
        }
        let bases = self.sender.bases.clone();
        tokio::task::spawn_blocking(move || {
            for (path, digest) in wanted {
                if !bases.has(&digest)
                    && let Ok(bytes) = std::fs::read(&path)
                    && Digest::of(&bytes) == digest
                {
                    bases.put(&digest, &bytes);
                }
            }
        });
    }
}

/// Refuses an ELF file whose machine, loader or libraries the app's root does not have.
async fn refuse_unrunnable(
    handle: &crate::session::Handle,
    file: &std::path::Path,
    place: &devsync_protocol::path::PodPath,
    machine: &str,
) -> Result<(), Halt> {
    let looked = elf::look_at_program(file).map_err(|error| {
        let hint = error.hint();
        CommandError::of(error).hint_opt(hint)
    });
    let Some(needs) = looked? else { return Ok(()) };
    let questions = needs.questions(place);
    let found = match handle.call(Call::Exists, &Request::Exists { paths: questions.clone() }).await? {
        Reply::Exists { found } => found,
        _ => Vec::new(),
    };
    let answers: BTreeMap<_, _> = questions.into_iter().zip(found).collect();
    match needs.lacks(place, machine, |path| answers.get(path).copied().unwrap_or(false)) {
        Some(lack) => Err(lack.refusal(file, machine).into()),
        None => Ok(()),
    }
}
