//! Between the new program's first breath and its release: it is held before its first instruction, so what the
//! old one left (children, pending signals) can be cleared away unseen. Must not change the new program itself.

use std::time::{Duration, Instant};

use super::arch::Call;
use super::error::ReexecError;
use super::inject::Injection;
use super::preflight::{self, Identity};
use super::threads::Threads;
use crate::restart::descendants;
use crate::sys::pidfd::PidFd;
use crate::sys::proc_task;
use crate::sys::ptrace::{self, Stop, Syscall};

const STEP_TIME: Duration = Duration::from_secs(5);
/// More stops than this on the way to the first call are not signals of the old program.
const MAX_STOPS: u32 = 200;

/// Clears up and lets the new program go; answers how many processes were ended.
pub(super) fn release(
    threads: &mut Threads,
    expected: &Identity,
    end_descendants: bool,
    was_stopped: bool,
) -> Result<u32, ReexecError> {
    let pid = threads.pid();
    // Out of execve, so that the thread is at the first instruction.
    threads.resume(pid, 0)?;
    expect_syscall(threads)?;
    let mut ended = 0;
    if end_descendants {
        ended = descendants::end(pid);
    }
    if descendants::has_dead_children(pid) {
        reap(threads)?;
    }
    drop_pending(threads)?;
    let runs = preflight::runs(pid, expected);
    ptrace::detach(pid, 0).map_err(|source| ReexecError::Trace { operation: "let go", tid: pid, source })?;
    if was_stopped {
        // A stop that was meant for the old program.
        PidFd::wake(pid);
    }
    match runs {
        Ok(false) => Err(ReexecError::ExecutedItself),
        _ => Ok(ended),
    }
}

fn expect_syscall(threads: &mut Threads) -> Result<(), ReexecError> {
    match threads.wait_for(threads.pid(), Instant::now() + STEP_TIME)? {
        Some(Stop::Ended(_)) => Err(threads.ended()),
        Some(_) => Ok(()),
        None => Err(ReexecError::Stuck { call: "execve" }),
    }
}

/// Collects the dead children, of which the new program knows nothing.
fn reap(threads: &mut Threads) -> Result<(), ReexecError> {
    let injection = Injection::begin(threads, threads.pid())?;
    let options = (libc::WNOHANG | libc::__WALL) as u64;
    let call = Call::new(libc::SYS_wait4, [u64::MAX, 0, options, 0]);
    while injection.call(threads, "wait4", &call).is_ok_and(|pid| pid != 0) {}
    injection.end(threads)
}

/// Drops the signals that were meant for the old program: unhandled, they would end the new one.
fn drop_pending(threads: &mut Threads) -> Result<(), ReexecError> {
    let pid = threads.pid();
    let pending = || proc_task::status(pid).map_or(0, |status| status.sig_pending);
    for _ in 0..MAX_STOPS {
        if pending() == 0 {
            return Ok(());
        }
        threads.resume(pid, 0)?;
        match threads.wait_for(pid, Instant::now() + STEP_TIME)? {
            Some(Stop::Ended(_)) => return Err(threads.ended()),
            // The first call of the new program: everything that was pending has come up by now.
            Some(Stop::Syscall) if matches!(ptrace::syscall(pid), Ok(Syscall::Entry(_))) => return Ok(()),
            Some(_) => {}
            None => return Err(ReexecError::Stuck { call: "its first" }),
        }
    }
    Ok(())
}
