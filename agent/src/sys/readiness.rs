//! Descriptors whose readiness tokio tells.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Watches a descriptor that is non-blocking; called within the runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one descriptor for its whole life, and `AsyncFd` owns it until it is deregistered.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
