//! The app's threads while they are traced: seized, stopped, waited for, let go. Waits for all of them at once,
//! because execve hangs until its thread's siblings are reaped. Knows nothing of what a stopped thread is made to do.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::ReexecError;
use crate::sys::pidfd::PidFd;
use crate::sys::proc_task;
use crate::sys::ptrace::{self, Ending, Stop};

/// How long a thread may take to stop; longer means that it waits in the kernel, uninterruptibly.
pub(super) const STOP_TIME: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Held(Stop),
}

/// The traced threads of one process.
pub(super) struct Threads {
    pid: i32,
    states: BTreeMap<i32, State>,
    /// Signals that were taken from threads and are to be given back.
    owed: BTreeMap<i32, Vec<i32>>,
    changes: SignalFd,
    ending: Option<Ending>,
}

impl Threads {
    /// Prepares to trace a process. SIGCHLD is blocked from here on: it says when to look.
    pub(super) fn new(pid: i32) -> Result<Self, ReexecError> {
        let wait = |errno: nix::Error| ReexecError::Wait { source: errno.into() };
        ptrace::default_sigchld().map_err(|source| ReexecError::Wait { source })?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().map_err(wait)?;
        let changes =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(wait)?;
        Ok(Self { pid, states: BTreeMap::new(), owed: BTreeMap::new(), changes, ending: None })
    }

    /// The process.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// How many threads are traced.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Seizes and stops every thread, until no new one shows up.
    pub(super) fn seize_all(&mut self) -> Result<(), ReexecError> {
        let deadline = Instant::now() + STOP_TIME;
        loop {
            let listed = proc_task::threads(self.pid).map_err(|_| self.ended())?;
            let mut more = false;
            for tid in listed.into_iter().filter(|tid| !self.states.contains_key(tid)).collect::<Vec<_>>() {
                more |= self.seize(tid)?;
            }
            self.wait_until_held(deadline)?;
            if !more {
                return if self.states.is_empty() { Err(self.ended()) } else { Ok(()) };
            }
        }
    }

    /// Seizes one thread and asks it to stop; false for one that needs nothing.
    fn seize(&mut self, tid: i32) -> Result<bool, ReexecError> {
        match ptrace::seize(tid) {
            Ok(()) => {
                self.states.insert(tid, State::Running);
                match ptrace::interrupt(tid) {
                    Ok(()) => Ok(true),
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(true),
                    Err(source) => Err(ReexecError::Trace { operation: "stop", tid, source }),
                }
            }
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(source) => match proc_task::status(tid) {
                // A leader that ended before its threads, or any thread that just did.
                Ok(status) if status.is_dead() => Ok(false),
                Err(_) => Ok(false),
                // Made by a thread that was already traced, so it is too.
                Ok(status) if status.tracer == std::process::id() => {
                    self.states.insert(tid, State::Running);
                    Ok(true)
                }
                Ok(_) => Err(ReexecError::Trace { operation: "seize", tid, source }),
            },
        }
    }

    /// Asks every running thread to stop and waits until they do.
    pub(super) fn stop_all(&mut self) -> Result<(), ReexecError> {
        for tid in self.running() {
            // One that ends meanwhile is reported by the wait.
            let _ = ptrace::interrupt(tid);
        }
        self.wait_until_held(Instant::now() + STOP_TIME)
    }

    fn running(&self) -> Vec<i32> {
        self.states.iter().filter(|(_, state)| **state == State::Running).map(|(tid, _)| *tid).collect()
    }

    fn wait_until_held(&mut self, deadline: Instant) -> Result<(), ReexecError> {
        while let Some(tid) = self.running().first().copied() {
            if self.next(deadline)?.is_none() {
                let state = proc_task::status(tid).map_or('?', |status| status.state);
                return Err(ReexecError::Unstoppable { tid, state });
            }
        }
        Ok(())
    }

    /// The next stop or end of any thread; `None` at the deadline.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Option<(i32, Stop)>, ReexecError> {
        loop {
            match ptrace::next_stop() {
                Ok(Some((tid, stop))) => {
                    if self.note(tid, stop) {
                        return Ok(Some((tid, stop)));
                    }
                }
                Ok(None) => {
                    if !self.wait_for_change(deadline)? {
                        return Ok(None);
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Err(self.ended()),
                Err(source) => return Err(ReexecError::Wait { source }),
            }
        }
    }

    /// Keeps the table; false for what is no thread of the app.
    fn note(&mut self, tid: i32, stop: Stop) -> bool {
        if let Stop::Ended(ending) = stop {
            if tid == self.pid {
                self.ending = Some(ending);
            }
            return self.states.remove(&tid).is_some();
        }
        if !self.states.contains_key(&tid) && tid != self.pid && !proc_task::is_thread_of(self.pid, tid) {
            // A child process that was made by clone without SIGCHLD: not ours to hold.
            let _ = ptrace::detach(tid, 0);
            return false;
        }
        if stop == Stop::Exec {
            self.states.clear();
        }
        self.states.insert(tid, State::Held(stop));
        true
    }

    fn wait_for_change(&self, deadline: Instant) -> Result<bool, ReexecError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Rounded up, so that the last part of a millisecond does not spin.
        let millis = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.changes.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut polled, millis) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(ReexecError::Wait { source: errno.into() }),
        }
        while let Ok(Some(_)) = self.changes.read_signal() {}
        Ok(true)
    }

    /// Waits for one thread; what the others report meanwhile is kept.
    pub(super) fn wait_for(&mut self, tid: i32, deadline: Instant) -> Result<Option<Stop>, ReexecError> {
        loop {
            match self.next(deadline)? {
                None => return Ok(None),
                Some((stopped, stop)) if stopped == tid => return Ok(Some(stop)),
                Some(_) => {}
            }
        }
    }

    /// Lets a held thread run to its next syscall stop.
    pub(super) fn resume(&mut self, tid: i32, signal: i32) -> Result<(), ReexecError> {
        match ptrace::resume(tid, signal) {
            Ok(()) => {
                self.states.insert(tid, State::Running);
                Ok(())
            }
            // Killed while it was held: its end is still to be reported.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
                self.states.insert(tid, State::Running);
                Ok(())
            }
            Err(source) => Err(ReexecError::Trace { operation: "resume", tid, source }),
        }
    }

    /// Leaves a thread in the stop of its whole group, where SIGSTOP put it.
    pub(super) fn leave_stopped(&mut self, tid: i32) -> Result<(), ReexecError> {
        ptrace::listen(tid).map_err(|source| ReexecError::Trace { operation: "leave", tid, source })?;
        self.states.insert(tid, State::Running);
        Ok(())
    }

    /// Notes what a thread was held in before it was made to do something else.
    pub(super) fn owe(&mut self, tid: i32, stop: Stop) {
        if let Stop::Signal(signal) = stop {
            self.owed.entry(tid).or_default().push(signal);
        }
    }

    /// What a thread is held in.
    pub(super) fn held(&self, tid: i32) -> Option<Stop> {
        match self.states.get(&tid) {
            Some(State::Held(stop)) => Some(*stop),
            _ => None,
        }
    }

    /// The held threads, the leader first, those with a signal to receive last.
    pub(super) fn candidates(&self) -> Vec<i32> {
        let mut held: Vec<i32> =
            self.states.keys().copied().filter(|tid| self.held(*tid).is_some()).collect();
        held.sort_by_key(|tid| (matches!(self.held(*tid), Some(Stop::Signal(_))), *tid != self.pid, *tid));
        held
    }

    /// Lets every thread go, each with the signal that it was about to receive.
    pub(super) fn release(&mut self) {
        let _ = self.stop_all();
        for (tid, state) in std::mem::take(&mut self.states) {
            if let State::Held(stop) = state {
                self.owe(tid, stop);
            }
            let mut owed = self.owed.remove(&tid).unwrap_or_default().into_iter();
            // One that still runs is let go when this process ends.
            let _ = ptrace::detach(tid, owed.next().unwrap_or(0));
            self.send_again(owed);
        }
    }

    /// Sends what can no longer be delivered with a thread's release.
    fn send_again(&self, signals: impl Iterator<Item = i32>) {
        for signal in signals {
            if let Ok(pidfd) = PidFd::open(self.pid.cast_unsigned()) {
                // Gone meanwhile: nobody to tell.
                let _ = pidfd.send_signal(signal);
            }
        }
    }

    /// The app is gone.
    pub(super) fn ended(&self) -> ReexecError {
        ReexecError::Ended { ending: self.ending }
    }
}
