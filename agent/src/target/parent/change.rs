//! Changing what is there: rename, unlink, mode, owner, time, contents in place. The leaf is never followed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, ftruncate, unlinkat};

use super::super::access::Hand;
use super::super::error::TargetError;
use super::super::metadata::{Kind, Metadata};
use super::super::path;
use super::Parent;
use crate::sys::{mountpoint, proc, rename};

impl Parent {
    /// Renames, and replaces what has the new name, as rename(2) does. EBUSY when either is a mount point.
    pub fn rename(&self, from: &[u8], to_dir: &Self, to: &[u8]) -> Result<(), TargetError> {
        path::check_leaf(from)?;
        to_dir.call("rename a file to", to, |_| {
            self.refuse_mount_point(from)?;
            to_dir.refuse_mount_point(to)?;
            renameat(&self.inner.dir, from, &to_dir.inner.dir, to)
        })
    }

    /// Renames a temp over `to`; nobody mounts on a temp.
    pub(in super::super) fn place(&self, temp: &[u8], to: &[u8]) -> Result<(), TargetError> {
        self.call("replace", to, |_| {
            self.refuse_mount_point(to)?;
            renameat(&self.inner.dir, temp, &self.inner.dir, to)
        })
    }

    /// As `rename`; EEXIST when the new name is taken.
    pub fn rename_noreplace(&self, from: &[u8], to_dir: &Self, to: &[u8]) -> Result<(), TargetError> {
        path::check_leaf(from)?;
        to_dir.call("rename a file to", to, |_| {
            self.refuse_mount_point(from)?;
            rename::noreplace(&self.inner.dir, from, &to_dir.inner.dir, to)
        })
    }

    /// Removes anything but a directory. EBUSY for a mount point.
    pub fn unlink(&self, leaf: &[u8]) -> Result<(), TargetError> {
        self.call("remove", leaf, |_| {
            self.refuse_mount_point(leaf)?;
            unlinkat(&self.inner.dir, leaf, UnlinkatFlags::NoRemoveDir)
        })
    }

    /// Removes an empty directory. EBUSY for a mount point.
    pub fn rmdir(&self, leaf: &[u8]) -> Result<(), TargetError> {
        self.call("remove the directory", leaf, |_| {
            self.refuse_mount_point(leaf)?;
            unlinkat(&self.inner.dir, leaf, UnlinkatFlags::RemoveDir)
        })
    }

    /// What the kernel does for the app and not for us, whose mount namespace is another: without it a volume or
    /// a mounted file of the app would be unmounted by being replaced.
    fn refuse_mount_point(&self, leaf: &[u8]) -> Result<(), Errno> {
        match mountpoint::is_mount_point(&self.inner.dir, leaf) {
            Ok(true) => Err(Errno::EBUSY),
            Ok(false) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Sets the mode of a regular file or directory; anything else is refused, a symlink first of all.
    pub fn chmod(&self, leaf: &[u8], mode: u32) -> Result<(), TargetError> {
        let operation = "change the mode of";
        let (fd, found) = self.pin(operation, leaf)?;
        if !matches!(found.kind, Kind::File | Kind::Directory) {
            return Err(self.wrong_kind(operation, leaf, found.kind));
        }
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        self.call_pinned(operation, leaf, &found, || {
            // fchmod takes no O_PATH descriptor, and fchmodat2 is younger than many kernels.
            fchmodat(AT_FDCWD, proc::by_descriptor(&fd).as_str(), mode, FchmodatFlags::FollowSymlink)
        })
    }

    /// Gives an entry (of a symlink: the link itself) another owner.
    pub fn chown(&self, leaf: &[u8], uid: u32, gid: u32) -> Result<(), TargetError> {
        let operation = "change the owner of";
        let (fd, found) = self.pin(operation, leaf)?;
        self.call_pinned(operation, leaf, &found, || {
            fchownat(&fd, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)
        })
    }

    /// Sets the modification time (seconds since 1970, nanoseconds) of an entry, of a symlink the link's own.
    pub fn set_mtime(&self, leaf: &[u8], mtime: (i64, u32)) -> Result<(), TargetError> {
        let mtime = TimeSpec::new(mtime.0, mtime.1.into());
        self.call("set the time of", leaf, |_| {
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(&self.inner.dir, leaf, &TimeSpec::UTIME_OMIT, &mtime, flags)
        })
    }

    /// Opens an existing regular file for writing, not truncated: ETXTBSY when it is being executed.
    pub fn open_in_place(&self, leaf: &[u8]) -> Result<File, TargetError> {
        let operation = "write in place";
        let (fd, found) = self.pin(operation, leaf)?;
        if !found.is_file() {
            return Err(self.wrong_kind(operation, leaf, found.kind));
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let reopen = |fd: &OwnedFd| proc::reopen(fd, flags);
        self.call_pinned(operation, leaf, &found, || reopen(&fd)).map(File::from)
    }

    /// Overwrites a regular file with all of `content` and cuts it to that length: the same inode, no moment at
    /// which it is empty. Only for files that rename cannot replace; a reader may see both versions mixed.
    pub fn write_in_place(&self, leaf: &[u8], content: &mut impl io::Read) -> Result<u64, TargetError> {
        let mut file = self.open_in_place(leaf)?;
        let failed = |error: io::Error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            self.error("write in place", leaf, errno)
        };
        let written = io::copy(content, &mut file).map_err(failed)?;
        let length = i64::try_from(written).map_err(|_| self.error("write in place", leaf, Errno::EFBIG))?;
        ftruncate(&file, length).map_err(|errno| self.error("write in place", leaf, errno))?;
        Ok(written)
    }

    /// With the agent's own rights a file with more than one name is left alone: one of them may be a link that
    /// the app made to a file that is not its own.
    fn call_pinned<T>(
        &self,
        operation: &'static str,
        leaf: &[u8],
        found: &Metadata,
        run: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        let linked = found.kind != Kind::Directory && found.links > 1;
        let done = self.call(operation, leaf, |hand| match hand {
            Hand::Agent if linked => Err(Errno::EMLINK),
            _ => run(),
        });
        match done {
            Err(error) if linked && error.errno() == Some(Errno::EMLINK) => {
                Err(TargetError::HardLinked { operation, path: self.path(leaf).as_slice().into() })
            }
            done => done,
        }
    }
}
