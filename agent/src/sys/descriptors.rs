//! Keeps descriptors that this process was started with away from the programs that it starts.

use std::io;
use std::os::fd::RawFd;

/// Highest descriptor looked at where close_range(2) is missing (before 5.11) or filtered.
const FALLBACK_LIMIT: RawFd = 65_536;

/// Marks every open descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: RawFd) {
    // SAFETY: CLOSE_RANGE_CLOEXEC only sets a flag; no descriptor that somebody owns is closed.
    let done = unsafe {
        libc::close_range(first as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int)
    };
    if done == 0 {
        return;
    }
    for fd in first..FALLBACK_LIMIT {
        // SAFETY: F_SETFD with FD_CLOEXEC only sets a flag, and a number that is not open is EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

static LIMIT: std::sync::OnceLock<(u64, u64)> = std::sync::OnceLock::new();

/// Remembers the limit of open files that this process began with.
pub fn remember_limit(soft: u64, hard: u64) {
    // The first word counts.
    let _ = LIMIT.set((soft, hard));
}

/// What was remembered.
pub fn limit_at_start() -> Option<(u64, u64)> {
    LIMIT.get().copied()
}

/// Sends without blocking if `fd` is a socket; `None` when it is not one.
pub fn send_if_socket(fd: RawFd, bytes: &[u8]) -> Option<io::Result<usize>> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length are of one live slice; the kernel only reads it.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent >= 0 {
        return Some(Ok(sent as usize));
    }
    let error = io::Error::last_os_error();
    (error.raw_os_error() != Some(libc::ENOTSOCK)).then_some(Err(error))
}
