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

/// Highest signal number of the kernel on x86_64 and aarch64.
const LAST_SIGNAL: libc::c_int = 64;
/// Bytes of a signal set as the kernel has it.
const KERNEL_SET: usize = 8;

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
type KernelAction = [usize; 4];

/// Puts every disposition that was inherited as "ignored" back to the default, except SIGPIPE, which stays ignored here.
///
/// exec keeps ignored signals ignored, and an ignored SIGCHLD would reap children before they can be waited for. The C library
/// hides two real-time signals, so the kernel is asked directly.
pub fn reset_ignored() {
    for number in (1..=LAST_SIGNAL).filter(|number| *number != libc::SIGPIPE) {
        let mut action: KernelAction = [0; 4];
        // SAFETY: a null new action only reads; the kernel writes one struct sigaction, which is at most the size of `action`.
        let read = unsafe {
            let none = std::ptr::null::<KernelAction>();
            libc::syscall(libc::SYS_rt_sigaction, number, none, &mut action, KERNEL_SET)
        };
        if read != 0 || action[0] != libc::SIG_IGN {
            continue;
        }
        let default: KernelAction = [libc::SIG_DFL, 0, 0, 0];
        // SAFETY: the kernel reads one struct sigaction from `default`; no handler is replaced, only "ignore".
        unsafe {
            let none = std::ptr::null_mut::<KernelAction>();
            libc::syscall(libc::SYS_rt_sigaction, number, &default, none, KERNEL_SET)
        };
    }
}

/// SIGPIPE as programs expect it: the standard library ignores it, and execve keeps that.
pub fn default_sigpipe() {
    // SAFETY: no handler is replaced, only "ignore".
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
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
