//! Pseudo-terminals: the calls that have no safe wrapper.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::pty::Winsize;

/// The slave of this master, whatever lies under its name in anybody's /dev/pts (ioctl_tty(2), TIOCGPTPEER).
pub fn peer(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and gives a new descriptor.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the call succeeded, so `slave` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

/// Sets the window's size; the kernel tells the foreground group (SIGWINCH).
pub fn resize(terminal: impl AsFd, size: &Winsize) -> Result<(), Errno> {
    // SAFETY: TIOCSWINSZ reads one struct winsize.
    let set =
        unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    Errno::result(set).map(drop)
}

/// Makes it the controlling terminal of the calling process, which leads a session without one.
pub fn control(terminal: impl AsFd) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}
