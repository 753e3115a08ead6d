//! Descriptors that a child gets beside its three standard ones, under the numbers 3, 4, …

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The number of the first one.
pub const FIRST: RawFd = 3;
/// Above every number that is given out.
const ABOVE: RawFd = 16;

/// The child of `command` has `descriptors` open from [`FIRST`] on, in their order; nobody else's child does.
pub fn pass(command: &mut Command, descriptors: Vec<OwnedFd>) {
    // SAFETY: between fork and exec the closure only makes system calls, on descriptors that it keeps open.
    unsafe {
        command.pre_exec(move || {
            // First out of the way, so that no number is overwritten before it was copied.
            let mut moved = [-1; (ABOVE - FIRST) as usize];
            for (place, descriptor) in moved.iter_mut().zip(&descriptors) {
                *place = duplicate_above(descriptor.as_raw_fd())?;
            }
            for (number, place) in (FIRST..).zip(moved).take(descriptors.len()) {
                copy_to(place, number)?;
            }
            Ok(())
        });
    }
}

fn duplicate_above(fd: RawFd) -> std::io::Result<RawFd> {
    // SAFETY: takes and gives numbers only; the copy closes itself at exec.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, ABOVE) };
    if copy < 0 { Err(std::io::Error::last_os_error()) } else { Ok(copy) }
}

fn copy_to(fd: RawFd, number: RawFd) -> std::io::Result<()> {
    // SAFETY: after fork this process has nobody who could own `number`.
    if unsafe { libc::dup2(fd, number) } < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptor that was passed under this number; asked once for each.
///
/// Only for a program that was started with [`pass`]: None where nothing is open there.
pub fn take(number: RawFd) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD of a number that is not open is EBADF, and nothing else.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, was inherited, and its caller is its only owner.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
