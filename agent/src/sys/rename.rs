//! renameat2(2), which not every libc wraps.

use std::os::fd::{AsFd, AsRawFd};

use nix::NixPath;
use nix::errno::Errno;

/// Renames only if `to` does not exist: EEXIST else.
pub fn noreplace(from_dir: impl AsFd, from: &[u8], to_dir: impl AsFd, to: &[u8]) -> Result<(), Errno> {
    let (from_dir, to_dir) = (from_dir.as_fd().as_raw_fd(), to_dir.as_fd().as_raw_fd());
    let flags = libc::RENAME_NOREPLACE;
    let renamed = from.with_nix_path(|from| {
        to.with_nix_path(|to| {
            // SAFETY: both paths are C strings that live during the call; both descriptors are open.
            unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from.as_ptr(), to_dir, to.as_ptr(), flags) }
        })
    })??;
    Errno::result(renamed).map(drop)
}
