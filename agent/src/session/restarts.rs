//! Restarts of a session: one thread does them, one at a time; a newer request replaces one that still waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devsync_protocol::message::Reply;
use devsync_protocol::restart::{AppState, RestartFailure, RestartMode, RestartReport};

use super::vigil::Vigil;
use super::wire::Outbox;
use crate::restart::helper::Launcher;
use crate::restart::ready::{self, Listening};
use crate::restart::reexec::{Recorded, Restart, Style};
use crate::restart::signal;
use crate::restart::supervise::{Outcome, Supervisor};
use crate::supervisor::wire::Held;
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
}

pub(super) struct Restarts {
    jobs: Sender<Job>,
    /// The last one that was asked for: nobody waits for what older ones become.
    newest: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Restarts {
    pub(super) fn start(mut app: App) -> io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        let newest_seq = Arc::new(AtomicU32::new(0));
        let asked = Arc::clone(&newest_seq);
        let thread = std::thread::Builder::new().name("restarts".into()).spawn(move || {
            app.watch();
            let mut listened = Listening::default();
            while let Some(job) = newest(&waiting) {
                app.serve(&job, &mut listened, &asked);
            }
            app.unwatch();
        })?;
        Ok(Self { jobs, newest: newest_seq, thread })
    }

    pub(super) fn ask(&self, job: Job) {
        self.newest.store(job.seq, Ordering::Relaxed);
        // The thread ends only with the session.
        let _ = self.jobs.send(job);
    }

    /// Waits for the restart that is going on: an app is never left half restarted.
    pub(super) fn end(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("a restart panicked");
        }
    }
}

fn newest(waiting: &Receiver<Job>) -> Option<Job> {
    let first = waiting.recv().ok()?;
    Some(waiting.try_iter().last().unwrap_or(first))
}

impl App {
    /// Restarts, answers, and tells when the app is ready. Errors of the wire end the session elsewhere.
    /// `listened` is where it listened when it last did: a crashed app listens nowhere.
    fn serve(&mut self, job: &Job, listened: &mut Listening, newest: &AtomicU32) {
        let outbox = self.outbox.clone();
        if let Ok(now) = Listening::of(self.process.pid() as i32)
            && !now.is_empty()
        {
            *listened = now;
        }
        let seq = job.seq;
        match self.restart(job) {
            Ok(report) => {
                let pid = report.new_pid as i32;
                let runs = report.mode != RestartMode::None;
                let _ = outbox.send(&Reply::Restarted { seq, report });
                if runs {
                    let matters = || newest.load(Ordering::Relaxed) == seq && self.process.is_alive().is_ok();
                    let report = ready::wait_while(pid, listened, READY, matters);
                    let _ = outbox.send(&Reply::Ready { seq, report });
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, hint = failure.hint, "no restart");
                let _ = outbox.send(&Reply::RestartFailed { seq, failure });
            }
        }
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
        let deadline = Instant::now() + grace + SUPERVISOR_TIME;
        // Its end is part of the restart, not news.
        self.unwatch();
        let outcome = supervisor.restart(deadline);
        let failed = |error| self.failure("restart", super::chain(&error), "look at the app's log");
        match outcome.map_err(failed)? {
            Outcome::Restarted { new: Some(new), .. } => {
                if let Ok(process) = Identity::open(new as u32) {
                    self.process = Arc::new(process);
                }
                self.watch();
                Ok(new as u32)
            }
            Outcome::Restarted { new: None, .. } => {
                Err(self.failure("restart", "the new program ended at once".into(), "look at the app's log"))
            }
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
