//! The loop of an attach: what changed here is sent, committed and run.
//!
//! One task owns all of it; builds, pulls and verifications run beside it. Knows the session and the files, not
//! the command line.

mod base;
mod batch;
mod builds;
mod chores;
mod delta;
mod follow;
mod halt;
mod outage;
mod pace;
mod place;
mod restarts;
mod root;
mod save;
mod serve;
mod status;
mod trees;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use devsync_protocol::message::RootOptions;
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use tokio::sync::mpsc;

use crate::app::App;
use crate::build::{Build, SharedBuilds};
use crate::cluster::{AddOptions, Marks, PodTarget};
use crate::connect::Route;
use crate::error::CommandError;
use crate::local::Change;
use crate::mapping::{Mapping, place_words};
use crate::on_change::OnChange;
use crate::report::{self, Reporter};
use crate::rule::RestartRules;
use crate::session::{self, Handle, Session};

use base::Bases;
use batch::Sender;
use builds::Builds;
use chores::Chores;
use follow::Link;
use halt::Halt;
use outage::Backoff;
use restarts::Restarts;
use root::Root;
pub use root::local_tree;
pub use serve::{Command, Difference, Reply, clock, compare_digests};
pub use status::{Board, State, Status, StatusRoot};

/// A restart waits until nothing changed for this long.
const QUIET: Duration = Duration::from_millis(20);
/// How often `--once` looks again.
const LOOKS: usize = 20;
/// What an attach is to do.
pub struct Job {
    pub target: String,
    pub route: Route,
    /// For a target in a cluster.
    pub in_cluster: Option<InCluster>,
    pub app: App,
    pub mappings: Vec<Mapping>,
    pub excludes: Vec<String>,
    pub options: RootOptions,
    pub rules: RestartRules,
    pub grace: Duration,
    /// What runs in the container after certain files were synced.
    pub on_change: Vec<OnChange>,
    pub build: Option<Build>,
    /// Shared with the other targets of the attach.
    pub builds: SharedBuilds,
    /// When the attach began: a build since then has all that is here.
    pub began: SystemTime,
    /// The project's directory, whose sources start builds.
    pub project: PathBuf,
    /// The file that the app should be running.
    pub exe: Option<PathBuf>,
    /// The mapping is a guess: it must be seen to fit.
    pub guessed: bool,
    /// Why the mapping is as it is.
    pub because: String,
    pub once: bool,
    /// Proposed places are right.
    pub yes: bool,
    /// Deletes of any number are meant.
    pub accept_deletes: bool,
}

/// What following a target in a cluster needs.
#[derive(Clone)]
pub struct InCluster {
    /// The pod of the last session.
    pub pod: PodTarget,
    /// How an agent is added where the last one is gone.
    pub add: AddOptions,
    pub marks: Marks,
}

/// An attach that goes on.
pub struct Engine {
    job: Job,
    link: Link,
    /// `None` while there is none.
    session: Option<Session>,
    /// The session's, or that of the last one, which says how it ended.
    handle: Handle,
    events: mpsc::Receiver<session::Event>,
    commands: mpsc::Receiver<Command>,
    pub reporter: Reporter,
    board: Board,
    roots: Vec<Root>,
    sender: Sender,
    builds: Option<Builds>,
    restarts: Restarts,
    chores: Chores,
    /// The trees must be compared before anything else is sent.
    stale: bool,
    /// There was a first sync.
    was_synced: bool,
    /// What batches held whose commit was not acknowledged: the pod may have it, and then it is ours.
    lost: BTreeMap<(usize, RelPath), Node>,
    /// Paths that were sent and may need a restart that was not asked for yet.
    owed: Vec<RelPath>,
    backoff: Backoff,
    /// Agents that were added since the last session that lasted.
    revived: u32,
    /// Why the tries failed, as it was said last.
    said_cause: Option<String>,
    /// Changes that wait for a build, or for another look.
    held_back: BTreeMap<usize, Change>,
    again_at: Option<tokio::time::Instant>,
    /// Files were seen to go, and more may follow: until when they are waited for at most.
    going_until: Option<tokio::time::Instant>,
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
        session: Session,
        events: mpsc::Receiver<session::Event>,
        commands: mpsc::Receiver<Command>,
        reporter: Reporter,
        board: Board,
    ) -> Self {
        let handle = session.handle();
        let bases = Bases::new(crate::dirs::cache().join("bases"));
        let sender = Sender::new(handle.clone(), bases);
        let restarts = Restarts::new(job.rules.clone(), job.grace, job.app.name());
        let chores = Chores::new(job.on_change.clone());
        Self {
            job,
            link: Link::Up { since: Instant::now() },
            session: Some(session),
            handle,
            events,
            commands,
            reporter,
            board,
            roots: Vec::new(),
            sender,
            builds: None,
            restarts,
            chores,
            stale: true,
            was_synced: false,
            lost: BTreeMap::new(),
            owed: Vec::new(),
            backoff: Backoff::default(),
            revived: 0,
            said_cause: None,
            held_back: BTreeMap::new(),
            again_at: None,
            going_until: None,
            next_root: 0,
            pulling: Arc::default(),
            left_because: None,
        }
    }

    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Builds, syncs, then follows what happens; a session that is lost is followed by another one. May be dropped
    /// at any await.
    pub async fn run(&mut self) -> Result<End, CommandError> {
        self.publish();
        match self.first_build().await {
            Ok(true) => {}
            Ok(false) => {
                return Err(CommandError::new("the first build failed, so nothing was synced")
                    .hint("mend it, then `devsync attach` again"));
            }
            Err(Halt::Failed(error)) => return Err(error),
            Err(Halt::Lost(cause)) => self.lose(cause)?,
        }
        loop {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(end),
                Err(Halt::Lost(cause)) => self.lose(cause)?,
                Err(Halt::Failed(error)) => return Err(error),
            }
            if let Some(error) = self.reporter.failure() {
                return Err(crate::error::StdoutError(error).into());
            }
        }
    }

    /// True where changes may be sent as they come.
    fn is_in_step(&self) -> bool {
        self.link.is_up() && !self.stale
    }

    /// The end of `--once`: what changed meanwhile is looked at again, and what is left out is a failure.
    async fn end_once(&mut self) -> Result<End, Halt> {
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
        Err(CommandError::new(format!("{} not synced", crate::report::count(left, "path")))
            .cause(because)
            .into())
    }

    async fn step(&mut self) -> Result<Option<End>, Halt> {
        if self.link.is_up() && self.stale && !self.waits_for_any_build() {
            if let Some(end) = self.sync_trees().await? {
                return Ok(Some(end));
            }
            if self.job.once {
                return self.end_once().await.map(Some);
            }
        }
        if self.is_in_step() {
            self.start_chore();
        }
        let restart_due = self.restarts.is_due() && self.chores.are_done() && self.is_in_step();
        let again_at = self.again_at.filter(|_| self.is_in_step());
        let again = again_at.unwrap_or_else(tokio::time::Instant::now);
        let quiets: Vec<_> = self.roots.iter().filter_map(Root::quiet).collect();
        let is_up = self.link.is_up();
        let stepped = tokio::select! {
            biased;
            event = self.events.recv(), if is_up => self.on_session(event),
            news = self.link.news(), if !is_up => self.on_link(news).await,
            (index, change) = pace::next_change(&mut self.roots) => self.on_change(index, change).await,
            news = builds::next(&mut self.builds) => self.on_build(news).await,
            command = self.commands.recv() => self.on_command(command).await,
            news = chores::next(&mut self.chores) => {
                self.on_chore(news);
                Ok(())
            }
            () = pace::quiet(quiets, QUIET), if restart_due => self.send_restart().await,
            () = tokio::time::sleep_until(again), if again_at.is_some() => self.look_again().await,
        };
        stepped.map(|()| None)
    }

    fn on_session(&mut self, event: Option<session::Event>) -> Result<(), Halt> {
        match event {
            Some(session::Event::Ended(error)) => Err(error.into()),
            None => Err(session::SessionError::Ended { said: None }.into()),
            Some(event) => {
                self.restarts.on_event(event, &mut self.reporter);
                Ok(())
            }
        }
    }

    /// Takes what came while something else was waited for, so that one line tells one save.
    fn drain_events(&mut self) -> Result<(), Halt> {
        while let Ok(event) = self.events.try_recv() {
            self.on_session(Some(event))?;
        }
        Ok(())
    }

    async fn send_restart(&mut self) -> Result<(), Halt> {
        self.restarts.send(&self.handle).await?;
        Ok(())
    }

    /// Waits until the restart that was asked for is over; for `--once`.
    async fn settle_restart(&mut self) -> Result<(), Halt> {
        self.settle_chores().await?;
        self.send_restart().await?;
        while self.restarts.is_running() {
            let event = self.events.recv().await;
            self.on_session(event)?;
        }
        self.reporter.end_line();
        match self.restarts.take_failure() {
            Some(error) => Err(error.into()),
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

    /// Writes what is worth keeping for the next attach, and gives the session back, to be closed.
    pub fn close(&mut self) -> Option<Session> {
        for root in &mut self.roots {
            root.save_index();
        }
        self.reporter.end_line();
        self.session.take()
    }
}
