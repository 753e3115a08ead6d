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

/// Whether a directory is the calling process's own root: the same directory of the same mount. False where the
/// kernel does not tell the mount (before Linux 5.8).
pub fn is_own_root(dir: impl AsFd) -> bool {
    let same = |a: &libc::statx, b: &libc::statx| {
        let told = a.stx_mask & b.stx_mask & libc::STATX_MNT_ID != 0;
        let device = |found: &libc::statx| (found.stx_dev_major, found.stx_dev_minor);
        told && a.stx_mnt_id == b.stx_mnt_id && a.stx_ino == b.stx_ino && device(a) == device(b)
    };
    match (statx(&dir, b"."), statx(&dir, b"/")) {
        (Ok(found), Ok(own)) => same(&found, &own),
        _ => false,
    }
}

fn statx(dir: impl AsFd, leaf: &[u8]) -> Result<libc::statx, Errno> {
    let fd = dir.as_fd().as_raw_fd();
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let asked = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let done = leaf.with_nix_path(|leaf| {
        // SAFETY: `leaf` is a C string, `found` is writable for one struct statx, the descriptor is open.
        unsafe { libc::syscall(libc::SYS_statx, fd, leaf.as_ptr(), flags, asked, found.as_mut_ptr()) }
    })?;
    Errno::result(done)?;
    // SAFETY: it was zeroed, which is a valid struct statx, and then filled by the kernel.
    Ok(unsafe { found.assume_init() })
}
