//! Requests: each is carried out where it belongs, and answered.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use devsync_protocol::message::{
    BatchId, Committed, MAX_OPS, MAX_ROOTS, Place, ProblemKind, Refusal, Reply, Request, RootId, RootOptions,
};
use devsync_protocol::path::{PodPath, display};
use devsync_protocol::restart::{AppState, RestartFailure, RestartMode};

use super::holders::Held;
use super::open::{Opened, refusal};
use super::pulse::Pulse;
use super::restarts::{App, Job, Restarts};
use super::wire::{Inbox, Outbox, WireError};
use super::{SessionConfig, SessionError, chain};
use crate::restart::ready::Listening;
use crate::sync::batch::Batch;
use crate::sync::commit::{abandon, commit};
use crate::sync::lock::{Lock, LockError};
use crate::sync::root::{Root, RootError, digest_reader};
use crate::sync::search::search;
use crate::sys::heap;
use crate::sys::ids::FsIdGuard;
use crate::target::error::TargetError;
use crate::target::identity::Identity;

/// Longest time that an app may take to shut down.
const MAX_GRACE: Duration = Duration::from_secs(600);
/// Most paths that are looked for at once.
const MAX_EXISTS: usize = 10_000;
/// After batches beyond this many bytes or operations, freed memory is given back to the kernel.
const LARGE: usize = 1024 * 1024;
const LARGE_OPS: usize = 500;
/// How long a session that is ended may take to let go.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// Mode of a sync root that is made because it was missing.
const ROOT_MODE: u32 = 0o755;

pub(super) struct Session {
    opened: Opened,
    config: SessionConfig,
    outbox: Outbox,
    restarts: Option<Restarts>,
    roots: Vec<Option<Root>>,
    batch: Option<Batch>,
    /// The newest batch that was not applied.
    failed: Option<BatchId>,
    /// Held from the first root that is opened for writing.
    lock: Option<(Lock, Option<Held>)>,
    /// The ids that files are touched with, kept from one operation of a batch to the next.
    ids: Option<FsIdGuard>,
}

impl From<RootError> for SessionError {
    fn from(error: RootError) -> Self {
        SessionError::Refused(chain(&error))
    }
}

impl Session {
    pub(super) fn new(opened: Opened, outbox: Outbox, config: &SessionConfig) -> Self {
        let app = App {
            process: opened.app.clone(),
            supervisor: opened.supervisor.clone(),
            recorded: opened.recorded.clone(),
            count: 0,
            vigil: None,
            outbox: outbox.clone(),
            listening: Listening::default(),
        };
        let started = Restarts::start(app);
        let restarts = started.inspect_err(|error| tracing::error!(%error, "restarts are not possible")).ok();
        let roots = (0..MAX_ROOTS).map(|_| None).collect();
        Self {
            opened,
            config: config.clone(),
            outbox,
            restarts,
            roots,
            batch: None,
            failed: None,
            lock: None,
            ids: None,
        }
    }

    /// Serves requests until the client closes.
    pub(super) fn serve<R: Read>(&mut self, inbox: &mut Inbox<R>) -> Result<(), SessionError> {
        let pulse = Pulse::start(self.outbox.clone());
        let pulse =
            pulse.inspect_err(|error| tracing::error!(%error, "long requests give no signs of life")).ok();
        let served = self.serve_all(inbox, pulse.as_ref());
        if let Some(pulse) = pulse {
            pulse.end();
        }
        served
    }

    fn serve_all<R: Read>(
        &mut self,
        inbox: &mut Inbox<R>,
        pulse: Option<&Pulse>,
    ) -> Result<(), SessionError> {
        while let Some(request) = inbox.next()? {
            match pulse {
                Some(pulse) if takes_long(&request) => pulse.over(|| self.handle(request))?,
                _ => self.handle(request)?,
            }
        }
        Ok(())
    }

    /// Takes back what was not committed, and waits for a restart that is going on.
    pub(super) fn end(mut self) {
        self.ids = None;
        if let Some(batch) = self.batch.take() {
            abandon(&mut self.roots, batch, &mut Committed::default());
        }
        if let Some(restarts) = self.restarts.take() {
            restarts.end();
        }
    }

    fn handle(&mut self, request: Request) -> Result<(), SessionError> {
        if !matches!(request, Request::Op { .. } | Request::Steps(_) | Request::Ping { .. }) {
            // The agent's own directory is not touched with the app's ids.
            self.ids = None;
        }
        match request {
            Request::Open { root, place, options } => self.open_root(root, &place, options),
            Request::Compare { root, tree, dirs, last } => {
                let reply = self.root(root)?.compare(tree, dirs, last);
                self.answer(root, "compare", reply)
            }
            Request::Manifest { root, entries, last } => {
                let outbox = self.outbox.clone();
                let send = |reply| outbox.send(&reply).map_err(StreamError::Wire);
                match self.root(root)?.manifest(entries, last, send) {
                    Err(StreamError::Root(error)) => self.answer(root, "compare", Err(error)),
                    Err(StreamError::Wire(error)) => Err(error.into()),
                    Ok(()) => Ok(()),
                }
            }
            Request::Begin { batch } => self.begin(batch),
            Request::Op { root, op } => {
                let (root, batch) = self.root_and_batch(root)?;
                Ok(root.stage(batch, op)?)
            }
            Request::Steps(steps) => {
                let incoming = self.batch.as_ref().and_then(|b| b.incoming.as_ref());
                let id = incoming.map(|i| i.root()).ok_or_else(|| broken("contents came without a file"))?;
                let (root, batch) = self.root_and_batch(id)?;
                Ok(root.steps(batch, &steps)?)
            }
            Request::Commit { batch } => self.commit(batch),
            Request::Abandon { batch } => self.abandon(batch),
            Request::Restart { seq, after, mode, grace_ms } => self.restart(seq, after, mode, grace_ms),
            Request::Verify { root } => self.verify(root),
            Request::Pull { root, path } => {
                let outbox = self.outbox.clone();
                let pulled = self
                    .root(root)?
                    .pull(path.as_ref(), |reply| outbox.send(&reply).map_err(StreamError::Wire));
                match pulled {
                    Ok(()) => Ok(()),
                    Err(StreamError::Wire(error)) => Err(error.into()),
                    Err(StreamError::Root(error)) => self.refuse("pull".to_owned(), &error),
                }
            }
            Request::Search { files } => {
                let places = self.whole().and_then(|whole| search(&whole, &files));
                self.reply_or_refuse("search", places.map(|places| Reply::Found { places }))
            }
            Request::Exists { paths } => {
                if paths.len() > MAX_EXISTS {
                    return Err(broken("it asks for too many paths at once"));
                }
                let found = paths.iter().map(|path| self.exists(path)).collect();
                self.send(&Reply::Exists { found })
            }
            Request::Ping { nonce } => self.send(&Reply::Pong { nonce }),
        }
    }

    fn send(&self, reply: &Reply) -> Result<(), SessionError> {
        Ok(self.outbox.send(reply)?)
    }

    fn refuse(&self, what: String, error: &RootError) -> Result<(), SessionError> {
        let refusal = match error {
            RootError::Target(error) => refusal(what, error),
            error => Refusal { what, cause: chain(error), hint: None, fatal: false },
        };
        self.send(&Reply::Refused(refusal))
    }

    fn reply_or_refuse(&self, what: &str, reply: Result<Reply, RootError>) -> Result<(), SessionError> {
        match reply {
            Ok(reply) => self.send(&reply),
            Err(error) => self.refuse(what.to_owned(), &error),
        }
    }

    fn answer(
        &mut self,
        root: RootId,
        what: &str,
        replies: Result<Vec<Reply>, RootError>,
    ) -> Result<(), SessionError> {
        match replies {
            Ok(replies) => replies.iter().try_for_each(|reply| self.send(reply)),
            Err(error @ RootError::Protocol(_)) => Err(error.into()),
            Err(error) => {
                let name = self.root(root).map(|r| display(r.dir.name())).unwrap_or_default();
                self.refuse(format!("{what} {name}"), &error)
            }
        }
    }

    fn root(&mut self, id: RootId) -> Result<&mut Root, SessionError> {
        let root = self.roots.get_mut(usize::from(id)).and_then(Option::as_mut);
        root.ok_or_else(|| broken("a sync root was used that is not open"))
    }

    fn root_and_batch(&mut self, id: RootId) -> Result<(&mut Root, &mut Batch), SessionError> {
        let batch = self.batch.as_mut().ok_or_else(|| broken("an operation came outside of a batch"))?;
        if batch.staged.len() + batch.problems.len() > MAX_OPS {
            return Err(broken("a batch has too many operations"));
        }
        let root = self.roots.get_mut(usize::from(id)).and_then(Option::as_mut);
        let root = root.ok_or_else(|| broken("a sync root was used that is not open"))?;
        if self.ids.is_none() {
            self.ids = root.dir.enter().ok();
        }
        if root.options.dry_run {
            return Err(broken("a root that was opened for looking only is written"));
        }
        Ok((root, batch))
    }

    fn open_root(&mut self, id: RootId, place: &Place, options: RootOptions) -> Result<(), SessionError> {
        if usize::from(id) >= MAX_ROOTS {
            return Err(broken("a sync root has too high a number"));
        }
        // A root for looking only may be opened again elsewhere: each pull needs one.
        let taken = self.roots[usize::from(id)].as_ref().is_some_and(|root| !root.options.dry_run);
        if self.batch.is_some() || taken {
            return Err(broken("a sync root was opened for writing twice, or within a batch"));
        }
        let Some(path) = self.absolute(place) else {
            let cause = "the app's working directory is not known".to_owned();
            let hint = Some("name the directory: --sync FROM:/TO".to_owned());
            return self.send(&Reply::Refused(Refusal { what: "open".into(), cause, hint, fatal: false }));
        };
        match self.open_at(id, &path, options) {
            Ok((root, exists)) => {
                self.roots[usize::from(id)] = Some(root);
                self.send(&Reply::Opened { root: id, path, exists, notes: Vec::new() })
            }
            Err(RootError::Lock(LockError::Held(by))) => self.send(&Reply::Refused(Refusal {
                what: format!("attach to process {}", self.opened.app.pid()),
                cause: format!("{by} is attached already"),
                hint: Some("end that attach first (Ctrl-C there), or take it over with --take-over".into()),
                fatal: true,
            })),
            Err(error) => self.refuse(format!("sync into {path}"), &error),
        }
    }

    fn open_at(
        &mut self,
        id: RootId,
        path: &PodPath,
        options: RootOptions,
    ) -> Result<(Root, bool), RootError> {
        let holder = format!("{}, since {}", self.config.peer, now());
        if !options.dry_run && self.lock.is_none() {
            self.lock = Some(self.hold(&holder)?);
        }
        let found = self.opened.root.sync_root(path.as_bytes());
        let exists = found.is_ok();
        let dir = match found {
            Err(error) if error.is_not_found() && !options.dry_run => {
                // Before the first of its directories is made.
                self.whole()?.check_writable(path.as_bytes().strip_prefix(b"/").unwrap_or_default())?;
                self.opened.root.make_sync_root(path.as_bytes(), ROOT_MODE)?
            }
            found => found?,
        };
        if !options.dry_run {
            dir.check_writable(b"")?;
        }
        Ok((Root::open(id, dir, options, &self.config.state, &holder)?, exists))
    }

    /// Takes the target for this session, from another one too if that was asked for. It is named by the process whose
    /// root is worked in, which stays the same when devsync-run starts the app anew.
    fn hold(&self, holder: &str) -> Result<(Lock, Option<Held>), LockError> {
        let root = self.opened.root.identity();
        // Agents beside several containers may share a directory, and each of those has a process 1.
        let name = format!("target-{}-{}-{}.lock", root.mount_namespace(), root.pid(), root.start_time());
        let path = self.config.state.join(&name);
        let holders = &self.config.holders;
        let take_over = self.config.take_over.swap(false, Ordering::SeqCst);
        let lock = match Lock::take(&path, holder) {
            Err(LockError::Held(_)) if take_over && holders.end(&name, &self.config.peer) => {
                Lock::wait(&path, holder, TAKE_OVER)?
            }
            taken => taken?,
        };
        let cut = self.config.cut.clone();
        Ok((lock, cut.map(|cut| holders.enter(&name, self.outbox.clone(), cut))))
    }

    fn absolute(&self, place: &Place) -> Option<PodPath> {
        let cwd = || PodPath::new(self.opened.report.cwd.clone()).ok();
        match place {
            Place::Cwd => cwd(),
            Place::BelowCwd(path) => cwd()?.join(path).ok(),
            Place::At(path) => Some(path.clone()),
        }
    }

    fn begin(&mut self, id: BatchId) -> Result<(), SessionError> {
        if self.batch.is_some() {
            return Err(broken("a batch began within another"));
        }
        self.batch = Some(Batch::new(id));
        Ok(())
    }

    fn take_batch(&mut self, id: BatchId) -> Result<Batch, SessionError> {
        match self.batch.take() {
            Some(batch) if batch.id == id => Ok(batch),
            other => {
                // It is taken back with the session.
                self.batch = other;
                Err(broken("a batch ended that had not begun"))
            }
        }
    }

    fn commit(&mut self, id: BatchId) -> Result<(), SessionError> {
        let batch = self.take_batch(id)?;
        if batch.incoming.is_some() {
            self.batch = Some(batch);
            return Err(broken("a batch ended within a file"));
        }
        if let Err(error @ TargetError::Vanished { .. }) = self.opened.root.identity().is_alive() {
            abandon(&mut self.roots, batch, &mut Committed::default());
            self.failed = Some(id);
            return self.send(&Reply::Gone { reason: error.to_string() });
        }
        let large = batch.memory > LARGE || batch.staged.len() > LARGE_OPS;
        let committed = commit(&mut self.roots, batch);
        // An app is not restarted on a half of what was saved.
        if !committed.applied || committed.problems.iter().any(|p| p.kind == ProblemKind::Io) {
            self.failed = Some(id);
        }
        self.send(&Reply::Committed(Box::new(committed)))?;
        if large {
            heap::give_back();
        }
        Ok(())
    }

    fn abandon(&mut self, id: BatchId) -> Result<(), SessionError> {
        let batch = self.take_batch(id)?;
        abandon(&mut self.roots, batch, &mut Committed::default());
        self.failed = Some(id);
        Ok(())
    }

    fn restart(
        &mut self,
        seq: u32,
        after: Option<BatchId>,
        mode: RestartMode,
        grace_ms: u32,
    ) -> Result<(), SessionError> {
        let refused = match &self.restarts {
            None => Some("the agent could not start its thread for restarts"),
            Some(_) if after.is_some() && after == self.failed => {
                Some("the batch before it was not applied, or not all of it")
            }
            Some(_) => None,
        };
        if let Some(cause) = refused {
            let failure = RestartFailure {
                what: format!("restart of process {}", self.opened.app.pid()),
                cause: cause.to_owned(),
                hint: "mend that first; the next save tries again".to_owned(),
                app: AppState::Untouched,
            };
            return self.send(&Reply::RestartFailed { seq, failure });
        }
        let mode = if mode == RestartMode::Auto { self.opened.auto.mode.clone() } else { mode };
        let grace = Duration::from_millis(grace_ms.into()).min(MAX_GRACE);
        if let Some(restarts) = &self.restarts {
            restarts.ask(Job { seq, mode, grace });
        }
        Ok(())
    }

    fn verify(&mut self, id: RootId) -> Result<(), SessionError> {
        let parts = match self.root(id)?.verify() {
            Ok(parts) => parts,
            Err(error) => return self.refuse("verify".to_owned(), &error),
        };
        let exe = self.exe_digest();
        let count = parts.len();
        for (index, entries) in parts.into_iter().enumerate() {
            let last = index + 1 == count;
            self.send(&Reply::Digests { root: id, entries, exe, last })?;
        }
        Ok(())
    }

    /// The digest of the executable that runs, even if its file was replaced since.
    fn exe_digest(&self) -> Option<devsync_protocol::digest::Digest> {
        let app = self.app_now();
        let mut exe = app.access().inspect(|| app.proc().open_exe()).ok()?;
        digest_reader(&mut exe).ok()
    }

    /// Under devsync-run each restart is another process than the one that the session began with.
    fn app_now(&self) -> Arc<Identity> {
        let supervised = self.opened.supervisor.as_ref().and_then(|supervisor| supervisor.app().ok()?);
        let now = supervised.and_then(|pid| Identity::open(u32::try_from(pid).ok()?).ok());
        now.map_or_else(|| Arc::clone(&self.opened.app), Arc::new)
    }

    fn whole(&self) -> Result<crate::target::root::SyncRoot, RootError> {
        Ok(self.opened.root.sync_root(b"/")?)
    }

    /// Links are followed within the app's root; directories count too.
    fn exists(&self, path: &PodPath) -> bool {
        self.opened.root.open_file(path.as_bytes()).is_ok()
            || self.opened.root.sync_root(path.as_bytes()).is_ok()
    }
}

/// What ends an answer that goes out in pieces.
enum StreamError {
    Root(RootError),
    Wire(WireError),
}

impl From<RootError> for StreamError {
    fn from(error: RootError) -> Self {
        StreamError::Root(error)
    }
}

/// What streams in is answered by being read; anything else may work for a while.
fn takes_long(request: &Request) -> bool {
    !matches!(request, Request::Begin { .. } | Request::Op { .. } | Request::Steps(_) | Request::Ping { .. })
}

fn broken(why: &'static str) -> SessionError {
    SessionError::Refused(format!("the client broke the protocol: {why}"))
}

/// The time of day for people, in UTC.
fn now() -> String {
    let seconds =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02} UTC")
}
