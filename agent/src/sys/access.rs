//! faccessat2(2): may the thread, with its present file system ids, write in this directory?

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Asks about the descriptor itself; ENOSYS (or EPERM from an old seccomp filter) when it cannot be asked.
pub fn may_write_in(dir: impl AsFd) -> Result<(), Errno> {
    let dir = dir.as_fd().as_raw_fd();
    // AT_EACCESS: without it the kernel would judge by the real ids and not by the thread's fs ids.
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a static C string and the descriptor is open; the kernel writes nothing.
    let allowed =
        unsafe { libc::syscall(libc::SYS_faccessat2, dir, c"".as_ptr(), libc::W_OK | libc::X_OK, flags) };
    Errno::result(allowed).map(drop)
}
