//! devsync-run: starts an app as its child and restarts it without ending the container.
//!
//! One thread, one poll(2) loop: it alone owns the child and its state; signals come through a signalfd, requests of the agent
//! through an abstract socket, output through pipes. Nothing in the loop waits for anybody else, except exec of the app.
//! An app's end is known to be complete when waitpid says that there is no child left: as a child subreaper this process becomes
//! the parent of every orphan below it.

pub mod args;
mod clearing;
mod control;
mod copied;
pub mod install;
mod life;
mod output;
mod requests;
mod ring;
pub mod seed;
mod starting;
mod terminal;
pub mod wire;

pub use copied::copy_of;

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signalfd::SignalFd;

use self::args::Config;
use self::control::Control;
use self::life::{App, BackOff, Clearing, End, Phase, Stage, Then};
use self::output::Stream;
use self::requests::Waiter;
use self::ring::Ring;
use self::terminal::Terminal;
use crate::sys::reap::Reaped;
use crate::sys::{descriptors, reap, signals};

/// How long the last output may wait for a reader that takes nothing.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// Why the supervisor itself could not run.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("signals cannot be taken over")]
    Signals(#[source] io::Error),
    #[error("the standard streams cannot be duplicated")]
    Streams(#[source] io::Error),
    #[error("poll failed")]
    Poll(#[source] io::Error),
    #[error("waiting for children failed")]
    Wait(#[source] io::Error),
}

/// Runs the app until it ends for good; the exit code for this process.
pub fn run(config: Config) -> Result<u8, SupervisorError> {
    descriptors::close_on_exec_from(3);
    signals::reset_ignored();
    let taken = signals::take_all().map_err(SupervisorError::Signals)?;
    let mut supervisor = Supervisor::new(config)?;
    supervisor.prepare();
    match supervisor.config.wait && !supervisor.has_waited() {
        true => supervisor.wait_for_first_sync(),
        false => supervisor.start(),
    }
    let code = supervisor.serve(&taken)?;
    supervisor.flush();
    Ok(code)
}

struct Supervisor {
    config: Config,
    out: Stream,
    err: Stream,
    ring: Ring,
    control: Option<Control>,
    terminal: Option<Terminal>,
    phase: Phase,
    app: Option<App>,
    /// The app's process group, which may outlive the app.
    group: Option<i32>,
    /// How the last run ended.
    end: Option<End>,
    /// TERM or INT arrived: the app's next end is the end.
    ending: Option<i32>,
    back_off: BackOff,
    starts: u32,
    waiters: Vec<Waiter>,
}

impl Supervisor {
    fn new(config: Config) -> Result<Self, SupervisorError> {
        Ok(Self {
            config,
            out: Stream::new(&io::stdout()).map_err(SupervisorError::Streams)?,
            err: Stream::new(&io::stderr()).map_err(SupervisorError::Streams)?,
            ring: Ring::default(),
            control: None,
            terminal: Terminal::find(),
            phase: Phase::Held { since: Instant::now() },
            app: None,
            group: None,
            end: None,
            ending: None,
            back_off: BackOff::default(),
            starts: 0,
            waiters: Vec::new(),
        })
    }

    /// What can be missing without ending the app: said, and gone without.
    fn prepare(&mut self) {
        if let Err(error) = set_child_subreaper(true) {
            self.say(&format!("orphans of the app cannot be followed: subreaper: {error}"));
        }
        match Control::bind() {
            Ok(control) => self.control = Some(control),
            Err(error) => self.say(&format!("restarts cannot be asked for: control socket: {error}")),
        }
    }

    /// One line on stderr.
    fn say(&mut self, line: &str) {
        self.err.queue(format!("devsync-run: {line}\n").as_bytes());
        self.err.pass_on();
    }

    fn serve(&mut self, taken: &SignalFd) -> Result<u8, SupervisorError> {
        loop {
            self.wait(taken)?;
            self.take_signals(taken);
            let childless = self.reap()?;
            for stream in [&mut self.out, &mut self.err] {
                stream.take(&mut self.ring);
                stream.pass_on();
            }
            self.take_requests();
            if let Some(code) = self.advance(childless) {
                return Ok(code);
            }
            self.answer_settled();
        }
    }

    /// Sleeps until a descriptor or a deadline has something to do.
    fn wait(&self, taken: &SignalFd) -> Result<(), SupervisorError> {
        use std::os::fd::AsFd;
        let mut fds = vec![PollFd::new(taken.as_fd(), PollFlags::POLLIN)];
        for stream in [&self.out, &self.err] {
            fds.extend(stream.readable().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            fds.extend(stream.writable().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        }
        if let Some(control) = &self.control {
            fds.extend(control.interest().map(|(fd, flags)| PollFd::new(fd, flags)));
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(SupervisorError::Poll(error.into())),
        }
    }

    fn timeout(&self) -> PollTimeout {
        if self.control.as_ref().is_some_and(Control::has_request) {
            return PollTimeout::ZERO;
        }
        let Some(at) = self.next_deadline() else { return PollTimeout::NONE };
        // Rounded up: a timeout that ends early would spin until the deadline.
        let wait = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Running | Phase::Held { .. } => None,
            Phase::BackOff { until, .. } => Some(*until),
            Phase::Clearing(Clearing { stage, .. }) => Some(match stage {
                Stage::Term { until } => *until,
                Stage::Kill { next, .. } => *next,
                Stage::Ports { .. } => Instant::now() + clearing::PORT_CHECK,
            }),
        };
        phase.into_iter().chain(self.waiters.iter().filter_map(Waiter::settled_at)).min()
    }

    fn take_signals(&mut self, taken: &SignalFd) {
        while let Ok(Some(info)) = taken.read_signal() {
            self.on_signal(info.ssi_signo as i32);
        }
    }

    fn on_signal(&mut self, number: i32) {
        match number {
            // Children are waited for in every turn.
            libc::SIGCHLD => return,
            // Faults and terminal stops of this process are not the app's.
            libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGSYS
            | libc::SIGPIPE
            | libc::SIGTTIN
            | libc::SIGTTOU
            | libc::SIGURG => return,
            libc::SIGTERM | libc::SIGINT => self.ending = Some(number),
            libc::SIGCONT => {
                if let (Some(terminal), Some(group)) = (&self.terminal, self.group) {
                    terminal.give(group);
                }
            }
            _ => {}
        }
        if let Some(group) = self.group {
            // The group may have just ended, which reaping tells.
            let _ = signals::send_group(group, number);
        }
    }

    /// Takes every ended child; true when none is left at all.
    fn reap(&mut self) -> Result<bool, SupervisorError> {
        use std::os::unix::process::ExitStatusExt;
        loop {
            match reap::next().map_err(SupervisorError::Wait)? {
                Reaped::Alive => return Ok(false),
                Reaped::NoChildren => return Ok(true),
                Reaped::Changed(pid, status) if self.app.is_some_and(|app| app.pid == pid) => {
                    match status.stopped_signal() {
                        Some(signal) => self.app_stopped(signal),
                        None => self.app_ended(status),
                    }
                }
                Reaped::Changed(..) => {}
            }
        }
    }

    fn app_stopped(&self, signal: i32) {
        let by_terminal = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        if let (Some(terminal), Some(group), true) = (&self.terminal, self.group, by_terminal) {
            terminal.suspend_with(group);
        }
    }

    /// The app's first process ended: decides what comes when the rest of it is gone too.
    fn app_ended(&mut self, status: std::process::ExitStatus) {
        let Some(app) = self.app.take() else { return };
        let end = End::of(status, app.since.elapsed());
        if let Some(terminal) = &self.terminal {
            terminal.take_back(app.pid);
        }
        if matches!(self.phase, Phase::Running) {
            let by_keyboard = self.terminal.is_some() && end.is_by_keyboard();
            let then = match end.exit_code() {
                0 => Then::Exit(0),
                code if self.ending.is_some() || by_keyboard => Then::Exit(code),
                _ if self.config.hold => Then::Hold,
                _ => Then::BackOff,
            };
            self.clear_rest(then);
        }
        self.end = Some(end);
    }

    fn flush(&mut self) {
        if let Some(control) = &mut self.control {
            control.refuse_waiting();
        }
        self.out.flush(FLUSH_PATIENCE);
        self.err.flush(FLUSH_PATIENCE);
    }
}
