//! statx(2), asked only whether a name is a mount point.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::NixPath;
use nix::errno::Errno;

/// Whether something is mounted on `leaf` of `dir`; a symlink is not followed.
///
/// The kernel's own protection (EBUSY of rename, unlink, rmdir) covers the caller's mount namespace only: in
/// another one's directory these calls succeed and *detach* what is mounted there (`detach_mounts`, Linux 3.18).
/// Before Linux 5.8 only mounts of another device are recognised.
pub fn is_mount_point(dir: impl AsFd, leaf: &[u8]) -> Result<bool, Errno> {
    let found = statx(&dir, leaf)?;
    let flag = libc::STATX_ATTR_MOUNT_ROOT as u64;
    if found.stx_attributes_mask & flag != 0 {
        return Ok(found.stx_attributes & flag != 0);
    }
    let here = statx(&dir, b".")?;
    Ok((here.stx_dev_major, here.stx_dev_minor) != (found.stx_dev_major, found.stx_dev_minor))
}

fn statx(dir: impl AsFd, leaf: &[u8]) -> Result<libc::statx, Errno> {
    let fd = dir.as_fd().as_raw_fd();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let done = leaf.with_nix_path(|leaf| {
        // SAFETY: `leaf` is a C string, `found` is writable for one struct statx, the descriptor is open.
        unsafe {
            libc::syscall(libc::SYS_statx, fd, leaf.as_ptr(), flags, libc::STATX_TYPE, found.as_mut_ptr())
        }
    })?;
    Errno::result(done)?;
    // SAFETY: it was zeroed, which is a valid struct statx, and then filled by the kernel.
    Ok(unsafe { found.assume_init() })
}
