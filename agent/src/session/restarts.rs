//! Restarts of a session: one thread does them, one at a time; a newer request replaces one that still waits.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devsync_protocol::message::Reply;
use devsync_protocol::restart::{AppState, ReadyReport, RestartFailure, RestartMode, RestartReport};

use super::vigil::Vigil;
use super::wire::Outbox;
use crate::restart::helper::Launcher;
use crate::restart::ready::{self, Listening};
use crate::restart::reexec::{Recorded, Restart, Style};
use crate::restart::signal;
use crate::restart::supervise::{Outcome, Supervisor};
use crate::supervisor::wire::{Held, State};
use crate::target::identity::Identity;

/// How long the app's sockets may take to come back before the wait for them ends.
const READY: Duration = Duration::from_secs(30);
/// Beyond the app's grace.
const SUPERVISOR_TIME: Duration = Duration::from_secs(15);

/// A restart that was asked for.
pub(super) struct Job {
    pub(super) seq: u32,
    /// Never `Auto`.
    pub(super) mode: RestartMode,
    pub(super) grace: Duration,
}

/// The app as the restarts see it.
pub(super) struct App {
    pub(super) process: Arc<Identity>,
    pub(super) supervisor: Option<Supervisor>,
    pub(super) recorded: Option<Recorded>,
    pub(super) count: u32,
    pub(super) vigil: Option<Vigil>,
    pub(super) outbox: Outbox,
    /// Where it listened when it last did: a program that crashed at its start does not, and the next one shall.
    pub(super) listening: Listening,
}

/// The newest restart that waits: there is never a second one.
#[derive(Default)]
struct Desk {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    job: Option<Job>,
    closed: bool,
}

impl Desk {
    fn change(&self, change: impl FnOnce(&mut Slot)) {
        change(&mut self.slot.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits for a job; `None` once the desk is closed and empty.
    fn next(&self) -> Option<Job> {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.changed.wait_while(slot, |slot| slot.job.is_none() && !slot.closed);
        waiting.unwrap_or_else(PoisonError::into_inner).job.take()
    }

    /// Something newer is to be done than what is done now.
    fn is_pressing(&self) -> bool {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.job.is_some() || slot.closed
    }
}

pub(super) struct Restarts {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

impl Restarts {
    pub(super) fn start(mut app: App) -> io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let own = Arc::clone(&desk);
        let thread = std::thread::Builder::new().name("restarts".into()).spawn(move || {
            app.watch();
            while let Some(job) = own.next() {
                app.serve(&job, &own);
            }
            app.unwatch();
        })?;
        Ok(Self { desk, thread })
    }

    /// A job that still waits is replaced.
    pub(super) fn ask(&self, job: Job) {
        self.desk.change(|slot| slot.job = Some(job));
    }

    /// Waits for the restart that is going on: an app is never left half restarted.
    pub(super) fn end(self) {
        self.desk.change(|slot| slot.closed = true);
        if self.thread.join().is_err() {
            tracing::error!("a restart panicked");
        }
    }
}

impl App {
    /// Restarts, answers, and tells when the app is ready. Errors of the wire end the session elsewhere.
    fn serve(&mut self, job: &Job, desk: &Desk) {
        let outbox = self.outbox.clone();
        let now = self.seen(|| Listening::of(self.process.pid() as i32)).ok();
        if let Some(now) = now.filter(|now| now.ports().next().is_some()) {
            self.listening = now;
        }
        let seq = job.seq;
        match self.restart(job) {
            Ok(report) => {
                let pid = report.new_pid as i32;
                let mode = report.mode.clone();
                let _ = outbox.send(&Reply::Restarted { seq, report });
                if mode != RestartMode::None
                    && let Some(report) = self.ready(pid, &mode, desk)
                {
                    let _ = outbox.send(&Reply::Ready { seq, report });
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, hint = failure.hint, "no restart");
                let _ = outbox.send(&Reply::RestartFailed { seq, failure });
            }
        }
    }

    /// Waits until the app listens where it did; `None` where something newer is to be done first.
    fn ready(&self, pid: i32, mode: &RestartMode, desk: &Desk) -> Option<ReadyReport> {
        let before = match mode {
            RestartMode::Signal(_) => self.listening.clone().kept(),
            _ => self.listening.clone(),
        };
        let stop = || desk.is_pressing() || self.process.is_alive().is_err();
        let report = self.seen(|| ready::wait_unless(pid, &before, READY, stop));
        if !report.missing.is_empty() && self.process.is_alive().is_err() {
            // Its end is what is told.
            return None;
        }
        (report.missing.is_empty() || !desk.is_pressing()).then_some(report)
    }

    /// Looks with the app's ids: without them root with default capabilities lists an app's descriptors, and may not
    /// know what they are.
    fn seen<T>(&self, look: impl FnOnce() -> T) -> T {
        let _ids = self.process.access().enter();
        look()
    }

    fn watch(&mut self) {
        let started = Vigil::start(Arc::clone(&self.process), self.supervisor.clone(), self.outbox.clone());
        self.vigil =
            started.inspect_err(|error| tracing::warn!(%error, "the app's life is not watched")).ok();
    }

    fn unwatch(&mut self) {
        if let Some(vigil) = self.vigil.take() {
            vigil.end();
        }
    }

    fn restart(&mut self, job: &Job) -> Result<RestartReport, RestartFailure> {
        let began = Instant::now();
        let old_pid = self.process.pid();
        let mut report = RestartReport {
            mode: job.mode.clone(),
            old_pid,
            new_pid: old_pid,
            ending: None,
            micros: 0,
            tracer_micros: 0,
            count: self.count,
        };
        match &job.mode {
            RestartMode::Auto | RestartMode::None => return Ok(report),
            RestartMode::Signal(name) => {
                let sent = signal::send(old_pid as i32, self.process.start_time(), name);
                sent.map_err(|error| {
                    self.failure("signal", super::chain(&error), "look at `devsync status`")
                })?;
            }
            RestartMode::Reexec => {
                let done = self.reexec(job.grace)?;
                report.ending = Some(done.ending);
                report.tracer_micros = done.tracer_micros;
            }
            RestartMode::Supervise => report.new_pid = self.supervise(job.grace)?,
        }
        self.count += 1;
        report.count = self.count;
        report.micros = began.elapsed().as_micros() as u64;
        Ok(report)
    }

    fn reexec(&self, grace: Duration) -> Result<crate::restart::reexec::Done, RestartFailure> {
        let hint = "attach again: the agent must be able to read how the app was started";
        let recorded = self.recorded.clone();
        let recorded = recorded
            .ok_or_else(|| self.failure("re-exec", "how it was started is not known".into(), hint))?;
        let style = if grace.is_zero() { Style::Forced } else { Style::Graceful { grace } };
        let restart = Restart { recorded, style, end_descendants: true, instance: None };
        Launcher::default().restart(self.process.pid() as i32, self.process.start_time(), restart)
    }

    /// Asks devsync-run; gives the new process.
    fn supervise(&mut self, grace: Duration) -> Result<u32, RestartFailure> {
        let hint = "start the app under devsync-run, or use --restart reexec";
        let supervisor = self.supervisor.clone();
        let supervisor = supervisor
            .ok_or_else(|| self.failure("restart", "it does not run under devsync-run".into(), hint))?;
        let deadline = Instant::now() + grace.min(Style::MAX_GRACE) + SUPERVISOR_TIME;
        // Its end is part of the restart, not news.
        self.unwatch();
        let done = self.supervised(&supervisor, deadline);
        // What ended in the failure is told with it.
        if done.is_ok() || self.process.is_alive().is_ok() {
            self.watch();
        }
        done
    }

    fn supervised(&mut self, supervisor: &Supervisor, deadline: Instant) -> Result<u32, RestartFailure> {
        let hint = "look at the app's log";
        let outcome = supervisor.restart(deadline);
        match outcome.map_err(|error| self.failure("restart", super::chain(&error), hint))? {
            Outcome::Restarted { new: Some(new), .. } => {
                if let Ok(process) = Identity::open(new as u32) {
                    self.process = Arc::new(process);
                }
                if self.recorded.is_none() {
                    // None of it ran before.
                    self.recorded = self.seen(|| Recorded::of(new)).ok();
                }
                Ok(new as u32)
            }
            Outcome::Restarted { new: None, .. } => match supervisor.status().map(|status| status.state) {
                Ok(State::Held(held) | State::Waiting { held, .. }) => Err(self.held(&held)),
                _ => Err(self.failure("restart", "the new program ended at once".into(), hint)),
            },
            Outcome::Held { held, .. } => Err(self.held(&held)),
        }
    }

    fn held(&self, held: &Held) -> RestartFailure {
        let output = devsync_protocol::path::display(&held.output);
        let cause = match output.is_empty() {
            true => held.cause.to_string(),
            false => format!("{}; its last output: {output}", held.cause),
        };
        let hint = "its container is kept: the next save starts it again".to_owned();
        let what = format!("restart of process {}", self.process.pid());
        RestartFailure { what, cause, hint, app: AppState::Gone }
    }

    fn failure(&self, operation: &str, cause: String, hint: &str) -> RestartFailure {
        RestartFailure {
            what: format!("{operation} of process {}", self.process.pid()),
            cause,
            hint: hint.to_owned(),
            app: if self.process.is_alive().is_ok() { AppState::Untouched } else { AppState::Gone },
        }
    }
}
