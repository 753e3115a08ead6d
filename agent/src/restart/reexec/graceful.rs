//! The old program's own shutdown under the tracer's eyes: SIGTERM, its handlers and exit hooks, up to the moment
//! at which it would end. Decides when that is; what happens then is the engine's business.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::error::ReexecError;
use super::threads::Threads;
use crate::sys::pidfd::PidFd;
use crate::sys::proc::Status;
use crate::sys::proc_task;
use crate::sys::ptrace::{self, Stop, Syscall};

const TERM: i32 = libc::SIGTERM;

/// What SIGTERM would do to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reception {
    /// Its own code runs: a handler, a signalfd, sigwait.
    Handled,
    /// It ends, or, as the first process of a pid namespace, not even that. No code of it runs.
    Default,
    /// Nothing.
    Nothing,
}

/// How the shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    /// This thread is held at the point where the process would end.
    Ending(i32),
    /// The grace is over.
    Outlasted,
}

/// What SIGTERM would do to a process whose threads are all held.
pub(super) fn reception(pid: i32, status: &Status) -> Reception {
    let tids = proc_task::threads(pid).unwrap_or_default();
    let blocked_everywhere = tids.iter().all(|tid| {
        proc_task::status(*tid).is_ok_and(|thread| has(thread.sig_blocked, TERM) || thread.state == 'Z')
    });
    let taken_otherwise = || {
        proc_task::signalfds(pid).is_ok_and(|masks| masks.iter().any(|mask| has(*mask, TERM)))
            || tids.iter().any(|tid| {
                proc_task::current_syscall(*tid).is_ok_and(|call| call == Some(libc::SYS_rt_sigtimedwait))
            })
    };
    match () {
        () if blocked_everywhere && taken_otherwise() => Reception::Handled,
        () if blocked_everywhere || has(status.sig_ignored, TERM) => Reception::Nothing,
        () if has(status.sig_caught, TERM) => Reception::Handled,
        () => Reception::Default,
    }
}

fn has(mask: u64, signal: i32) -> bool {
    mask >> (signal - 1) & 1 == 1
}

/// Whether a signal without a handler ends the process.
fn ends_by_default(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
    )
}

fn stops_by_default(signal: i32) -> bool {
    matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// Lets the program run after its signal, and holds the thread that ends it.
pub(super) fn shut_down(threads: &mut Threads, grace: Duration) -> Result<Shutdown, ReexecError> {
    let deadline = Instant::now() + grace;
    for tid in threads.candidates() {
        if let Some(stop) = threads.held(tid)
            && let Some(end) = step(threads, tid, stop)?
        {
            return Ok(end);
        }
    }
    while let Some((tid, stop)) = threads.next(deadline)? {
        if let Some(end) = step(threads, tid, stop)? {
            return Ok(end);
        }
    }
    Ok(Shutdown::Outlasted)
}

/// Sends SIGTERM, and SIGCONT to a stopped program. An error means that nothing was sent.
pub(super) fn tell(pid: i32, was_stopped: bool) -> Result<(), ReexecError> {
    let failed = |errno: Errno| ReexecError::Trace { operation: "signal", tid: pid, source: errno.into() };
    let pidfd = PidFd::open(pid.cast_unsigned()).map_err(failed)?;
    pidfd.send_signal(TERM).map_err(failed)?;
    if was_stopped {
        // What the first one was permitted, this one is; gone meanwhile, nothing is to be woken.
        let _ = pidfd.send_signal(libc::SIGCONT);
    }
    Ok(())
}

/// Lets a thread go on, unless this is the end of the process.
fn step(threads: &mut Threads, tid: i32, stop: Stop) -> Result<Option<Shutdown>, ReexecError> {
    match stop {
        Stop::Ended(_) if threads.len() == 0 => return Err(threads.ended()),
        Stop::Ended(_) => {}
        Stop::Exec => return Err(ReexecError::ExecutedItself),
        Stop::Event(signal) if stops_by_default(signal) => threads.leave_stopped(tid)?,
        Stop::Clone | Stop::Event(_) => threads.resume(tid, 0)?,
        Stop::Signal(signal) if is_fatal(tid, signal) => return Ok(Some(Shutdown::Ending(tid))),
        Stop::Signal(signal) => threads.resume(tid, signal)?,
        Stop::Syscall if ends_process(threads, tid)? => return Ok(Some(Shutdown::Ending(tid))),
        Stop::Syscall => threads.resume(tid, 0)?,
    }
    Ok(None)
}

fn is_fatal(tid: i32, signal: i32) -> bool {
    let handled = |status: Status| has(status.sig_caught, signal) || has(status.sig_ignored, signal);
    ends_by_default(signal) && !proc_task::status(tid).is_ok_and(handled)
}

/// Whether the thread is about to end the process: by exit_group, or by exit as the last one.
fn ends_process(threads: &Threads, tid: i32) -> Result<bool, ReexecError> {
    match ptrace::syscall(tid) {
        Ok(Syscall::Entry(number)) if number == libc::SYS_exit_group as u64 => Ok(true),
        Ok(Syscall::Entry(number)) if number == libc::SYS_exit as u64 => {
            let alive = |tid: &i32| proc_task::status(*tid).is_ok_and(|status| !status.is_dead());
            let tids = proc_task::threads(threads.pid()).unwrap_or_default();
            Ok(tids.iter().filter(|tid| alive(tid)).count() <= 1)
        }
        Ok(_) => Ok(false),
        // Killed while it was held: its end is still to be reported.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(source) => Err(ReexecError::Trace { operation: "look at the call of", tid, source }),
    }
}
