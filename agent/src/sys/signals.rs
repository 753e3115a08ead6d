//! Signals taken through a descriptor instead of handlers, and sent to groups by number (nix's `Signal` has no real-time signals).

use std::io;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocks every signal of this thread and returns the descriptor that reads them.
///
/// Blocked signals are delivered to a signalfd even for PID 1, whose default dispositions would discard them.
pub fn take_all() -> io::Result<SignalFd> {
    let all = SigSet::all();
    all.thread_block()?;
    Ok(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Puts every disposition that was inherited as "ignored" back to the default, except SIGPIPE, which stays ignored here.
///
/// exec keeps ignored signals ignored, and an ignored SIGCHLD would reap children before they can be waited for.
pub fn reset_ignored() {
    for number in 1..=libc::SIGRTMAX() {
        if number == libc::SIGKILL || number == libc::SIGSTOP || number == libc::SIGPIPE {
            continue;
        }
        // SAFETY: a null action only reads; the old action is written into a zeroed struct of its own.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(number, std::ptr::null(), &mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
        };
        if ignored {
            // SAFETY: SIG_DFL is a valid disposition for every signal but KILL and STOP, which were left out.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

/// Sends `number` to the process group `group`.
pub fn send_group(group: i32, number: i32) -> io::Result<()> {
    if group <= 1 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: kill takes numbers only; the group is positive and above 1, so never "everybody" (-1).
    check(unsafe { libc::kill(-group, number) })
}

/// Sends `number` to the process `pid`.
pub fn send(pid: i32, number: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: kill takes numbers only; the pid is positive, so one process is meant.
    check(unsafe { libc::kill(pid, number) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
