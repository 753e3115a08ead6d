//! The loop of an attach: what changed here is sent, committed and run.
//!
//! One task owns all of it; builds, pulls and verifications run beside it. Knows the session and the files, not
//! the command line.

mod base;
mod batch;
mod builds;
mod first;
mod pace;
mod restarts;
mod root;
mod serve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devsync_protocol::message::RootOptions;
use devsync_protocol::path::RelPath;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

use crate::app::App;
use crate::build::Build;
use crate::error::CommandError;
use crate::local::{Change, Guard, GuardVerdict};
use crate::mapping::{Mapping, place_words};
use crate::report::{self, Event, Hops, Reporter, Synced, ms};
use crate::rule::RestartRules;
use crate::session::{self, Handle};

use base::Bases;
use batch::{Outcome, Said, Sender};
use builds::Builds;
use restarts::Restarts;
pub use root::local_tree;
use root::{Root, Work, scan_error};
pub use serve::{Command, Difference, Reply, Status, StatusRoot, clock, compare_digests};

/// A restart waits until nothing changed for this long.
const QUIET: Duration = Duration::from_millis(20);
/// A file that changed while it was read is looked at again after this long, if no event says so before.
const AGAIN: Duration = Duration::from_millis(150);
/// How often `--once` looks again.
const LOOKS: usize = 20;
/// Files that go are gone when no other change follows for this long, and after the other time anyway.
const LULL: Duration = Duration::from_millis(100);
const LULL_WITHIN: Duration = Duration::from_secs(5);

/// What an attach is to do.
pub struct Job {
    pub target: String,
    pub app: App,
    pub mappings: Vec<Mapping>,
    pub excludes: Vec<String>,
    pub options: RootOptions,
    pub rules: RestartRules,
    pub grace: Duration,
    pub build: Option<Build>,
    /// The project's directory, whose sources start builds.
    pub project: PathBuf,
    /// The file that the app should be running.
    pub exe: Option<PathBuf>,
    /// The mapping is a guess: it must be seen to fit.
    pub guessed: bool,
    /// Why the mapping is as it is.
    pub because: String,
    pub once: bool,
    pub yes: bool,
    pub since: String,
}

/// An attach that goes on.
pub struct Engine {
    job: Job,
    handle: Handle,
    events: mpsc::Receiver<session::Event>,
    commands: mpsc::Receiver<Command>,
    pub reporter: Reporter,
    roots: Vec<Root>,
    sender: Sender,
    builds: Option<Builds>,
    restarts: Restarts,
    /// Changes that wait for a build, or for another look.
    held_back: BTreeMap<usize, Change>,
    again_at: Option<tokio::time::Instant>,
    /// Files were seen to go, and more may follow: until when they are waited for at most.
    going_until: Option<tokio::time::Instant>,
    saves: u64,
    next_root: u16,
    /// Held by the pull that runs: all use one sync root's number.
    pulling: Arc<tokio::sync::Mutex<()>>,
    /// Why something was left out of the last batch.
    left_because: Option<String>,
}

/// Why the loop ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `--once`: everything was synced.
    Done,
    /// `--dry-run`, or what was said.
    Shown,
}

impl Engine {
    pub fn new(
        job: Job,
        handle: Handle,
        events: mpsc::Receiver<session::Event>,
        commands: mpsc::Receiver<Command>,
        reporter: Reporter,
    ) -> Self {
        let bases = Bases::new(crate::dirs::cache().join("bases"));
        let sender = Sender { handle: handle.clone(), bases, last: 0, progress: None };
        let restarts = Restarts::new(job.rules.clone(), job.grace, job.app.name());
        Self {
            job,
            handle,
            events,
            commands,
            reporter,
            roots: Vec::new(),
            sender,
            builds: None,
            restarts,
            held_back: BTreeMap::new(),
            again_at: None,
            going_until: None,
            saves: 0,
            next_root: 0,
            pulling: Arc::default(),
            left_because: None,
        }
    }

    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Builds, syncs, then follows what happens until the session ends. May be dropped at any await.
    pub async fn run(&mut self) -> Result<End, CommandError> {
        if !self.first_build().await? {
            return Err(CommandError::new("the first build failed, so nothing was synced")
                .hint("mend it, then `devsync attach` again"));
        }
        if let Some(end) = self.first_sync().await? {
            return Ok(end);
        }
        if self.job.once {
            return self.end_once().await;
        }
        loop {
            self.step().await?;
            if let Some(error) = self.reporter.failure() {
                return Err(crate::error::StdoutError(error).into());
            }
        }
    }

    /// The end of `--once`: what changed meanwhile is looked at again, and what is left out is a failure.
    async fn end_once(&mut self) -> Result<End, CommandError> {
        for _ in 0..LOOKS {
            let Some(at) = self.again_at else { break };
            tokio::time::sleep_until(at).await;
            self.look_again().await?;
        }
        self.settle_restart().await?;
        let left: usize = self.roots.iter().map(|root| root.left.len()).sum();
        if left == 0 {
            return Ok(End::Done);
        }
        let because = self.left_because.take();
        let because = because.unwrap_or_else(|| "it changes faster than it can be read".to_owned());
        Err(CommandError::new(format!("{} not synced", crate::report::count(left, "path"))).cause(because))
    }

    async fn step(&mut self) -> Result<(), CommandError> {
        let restart_due = self.restarts.is_due();
        let again_at = self.again_at.unwrap_or_else(tokio::time::Instant::now);
        let quiets: Vec<_> = self.roots.iter().filter_map(Root::quiet).collect();
        tokio::select! {
            biased;
            event = self.events.recv() => self.on_session(event),
            (index, change) = pace::next_change(&mut self.roots) => self.on_change(index, change).await,
            news = builds::next(&mut self.builds) => self.on_build(news).await,
            command = self.commands.recv() => self.on_command(command).await,
            () = pace::quiet(quiets, QUIET), if restart_due => self.send_restart().await,
            () = tokio::time::sleep_until(again_at), if self.again_at.is_some() => self.look_again().await,
        }
    }

    fn on_session(&mut self, event: Option<session::Event>) -> Result<(), CommandError> {
        match event {
            Some(session::Event::Ended(error)) => Err(error.into()),
            None => Err(CommandError::new("the session ended")),
            Some(event) => {
                self.restarts.on_event(event, &mut self.reporter);
                Ok(())
            }
        }
    }

    /// Takes what came while something else was waited for, so that one line tells one save.
    fn drain_events(&mut self) -> Result<(), CommandError> {
        while let Ok(event) = self.events.try_recv() {
            self.on_session(Some(event))?;
        }
        Ok(())
    }

    async fn on_change(&mut self, index: usize, change: Option<Change>) -> Result<(), CommandError> {
        let Some(change) = change else {
            return Err(CommandError::new(format!(
                "{} is not watched any more",
                root::show(&self.roots[index].dir)
            )));
        };
        for note in &change.notes {
            self.reporter.event(&Event::Note { text: note.to_string(), hint: note.hint() });
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

    fn hold_back(&mut self, index: usize, change: Change) {
        let held = self.held_back.entry(index).or_insert_with(|| pace::nothing(change.first_event));
        pace::merge(held, change);
    }

    /// Another look once nothing happened for a while: a removal of everything begins with a few files.
    fn wait_for_lull(&mut self) {
        let now = tokio::time::Instant::now();
        let until = *self.going_until.get_or_insert(now + LULL_WITHIN);
        self.again_at = Some(until.min(now + LULL));
    }

    /// Another look at files that changed while they were read, and at those that went.
    async fn look_again(&mut self) -> Result<(), CommandError> {
        self.again_at = None;
        let (parked, changes) =
            std::mem::take(&mut self.held_back).into_iter().partition(|(i, c)| self.waits_for_build(*i, c));
        self.held_back = parked;
        let saved = self.save(changes).await;
        self.going_until = None;
        saved
    }

    /// Sends what really changed at these paths.
    async fn save(&mut self, changes: BTreeMap<usize, Change>) -> Result<(), CommandError> {
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
        self.check_executable(&works).await?;
        let wire = self.handle.sent() + self.handle.received();
        let asked: Vec<RelPath> = works.iter().flat_map(Work::paths).cloned().collect();
        let mut outcome = self.sender.send(&mut self.roots, works).await?;
        let total = first_event.elapsed();
        outcome.times.read += looked;
        self.after_batch(&outcome);
        if outcome.files == 0 && outcome.deleted == 0 && outcome.paths.is_empty() {
            return Ok(());
        }
        let watch = started.saturating_duration_since(first_event);
        let hops = hops(&outcome, watch, total);
        let wire_bytes = self.handle.sent() + self.handle.received() - wire;
        let restarts = self.restarts.ask(&asked, outcome.batch, first_event, hops);
        self.drain_events()?;
        self.say_synced(outcome, hops, wire_bytes, false, restarts);
        // Where it has been quiet for long enough already the restart goes right behind the commit.
        if self.is_quiet() {
            self.send_restart().await?;
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.restarts.is_due() && self.roots.iter().filter_map(Root::quiet).all(|q| pace::is_quiet(&q, QUIET))
    }

    /// What is to be sent of one root's change; asks where many deletes would follow.
    async fn refresh(&mut self, index: usize, change: &Change) -> Result<Option<Work>, CommandError> {
        let root = &mut self.roots[index];
        let update = block_in_place(|| root.refresh(change)).map_err(scan_error)?;
        let work = root.work(&update);
        if self.going_until.is_none() && pace::more_may_go(&work) {
            self.hold_back(index, change.clone());
            self.wait_for_lull();
            return Ok(None);
        }
        for skipped in &update.skipped {
            let (path, cause) = (devsync_protocol::path::display(&skipped.path), skipped.why.to_string());
            self.reporter.event(&Event::Skipped { path, cause });
        }
        for path in &update.changing {
            self.try_again(index, path.clone());
        }
        let root = &mut self.roots[index];
        let guard = Guard { accept_deletes: self.job.yes };
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

    async fn confirm_deletes(&mut self, dir: &str, deletes: usize, of: usize) -> Result<(), CommandError> {
        self.reporter.end_line();
        let question = format!("{deletes} of {of} files are gone from {dir}: delete them in the pod too?");
        match crate::ask::confirm(&question).await {
            Some(true) => Ok(()),
            Some(false) => Err(CommandError::new("ended without deleting anything in the pod")),
            None => Err(CommandError::new(format!("{deletes} of {of} files are gone from {dir}"))
                .cause(
                    "that many deletes are not made without being asked for; nothing was deleted in the pod",
                )
                .hint("if they are meant: devsync attach --yes")),
        }
    }

    fn try_again(&mut self, index: usize, path: RelPath) {
        let change = self.held_back.entry(index).or_insert_with(|| pace::nothing(Instant::now()));
        change.paths.insert(path);
        self.again_at.get_or_insert_with(|| tokio::time::Instant::now() + AGAIN);
    }

    /// Says what went wrong and keeps in mind what is to be tried again.
    fn after_batch(&mut self, outcome: &Outcome) {
        for said in &outcome.problems {
            let event = match said {
                Said::Conflict { path } => Event::Conflict { path: path.clone() },
                Said::Problem { path, cause, hint } => {
                    Event::Problem { path: path.clone(), cause: cause.clone(), hint: hint.clone() }
                }
            };
            self.reporter.event(&event);
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

    fn say_synced(&mut self, outcome: Outcome, hops: Hops, wire_bytes: u64, initial: bool, restarts: bool) {
        self.saves += 1;
        let Outcome { files, deleted, bytes, paths, in_place, .. } = outcome;
        let synced =
            Synced { initial, files, deleted, bytes, wire_bytes, paths, in_place, ms: hops, restarts };
        self.reporter.event(&Event::Synced(synced));
    }

    async fn send_restart(&mut self) -> Result<(), CommandError> {
        self.restarts.send(&self.handle).await?;
        Ok(())
    }

    /// Waits until the restart that was asked for is over; for `--once`.
    async fn settle_restart(&mut self) -> Result<(), CommandError> {
        self.send_restart().await?;
        while self.restarts.is_running() {
            let event = self.events.recv().await;
            self.on_session(event)?;
        }
        self.reporter.end_line();
        match self.restarts.take_failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The mappings as a person reads them.
    pub fn places(&self) -> Vec<report::Place> {
        let words = |mapping: &Mapping| {
            let place = place_words(&mapping.place, &self.job.app);
            let (from, to) = match &mapping.source {
                crate::mapping::Source::Tree(dir) => (dir, place),
                crate::mapping::Source::File { path, name } => {
                    (path, format!("{}/{name}", place.trim_end_matches('/')))
                }
            };
            report::Place { from: crate::dirs::near(from), to }
        };
        self.job.mappings.iter().map(words).collect()
    }

    /// Writes what is worth keeping for the next session.
    pub fn close(&mut self) {
        for root in &mut self.roots {
            root.save_index();
        }
        self.reporter.end_line();
    }
}

fn hops(outcome: &Outcome, watch: Duration, total: Duration) -> Hops {
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
