//! One entry of the app's tree, held by a descriptor: whatever happens to its name, what was found is what is opened
//! and changed. For clients that name paths one by one; a sync works on names in a `Parent`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, fstat, utimensat};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, ftruncate};

use super::access::Hand;
use super::error::TargetError;
use super::metadata::{Kind, Metadata};
use super::parent::forbidden;
use super::root::SyncRoot;
use crate::sys::proc;

/// Seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

#[derive(Debug)]
pub struct Entry {
    root: SyncRoot,
    fd: OwnedFd,
    found: Metadata,
    /// As the app names it; for messages.
    name: Vec<u8>,
}

impl Entry {
    pub(super) fn new(root: SyncRoot, fd: OwnedFd, name: Vec<u8>) -> Result<Self, TargetError> {
        let found = fstat(&fd).map_err(|errno| TargetError::Call {
            operation: "stat",
            path: name.as_slice().into(),
            errno,
        })?;
        Ok(Self { root, fd, found: found.into(), name })
    }

    /// An open file as an entry; `name` is for messages.
    pub fn of_file(root: &SyncRoot, file: &File, name: &[u8]) -> Result<Self, TargetError> {
        let name = super::path::join(b"/", name);
        let again = proc::reopen(file, OFlag::O_PATH);
        match again {
            Ok(fd) => Self::new(root.clone(), fd, name),
            Err(errno) => Err(TargetError::Call { operation: "open", path: name.as_slice().into(), errno }),
        }
    }

    /// The same entry with what it is by now: its number of names decides what may be done.
    pub fn again(&self) -> Result<Self, TargetError> {
        let fd = self.fd.try_clone().map_err(|error| {
            self.error("hold", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
        })?;
        Self::new(self.root.clone(), fd, self.name.clone())
    }

    /// What it was when it was found.
    pub fn metadata(&self) -> Metadata {
        self.found
    }

    /// Of the file system that it lies on.
    pub fn file_system(&self) -> Result<Statvfs, TargetError> {
        fstatvfs(&self.fd).map_err(|errno| self.error("ask the file system of", errno))
    }

    /// What a symlink says.
    pub fn link(&self) -> Result<Vec<u8>, TargetError> {
        use std::os::unix::ffi::OsStringExt;
        let read = self.root.access().run(|_| readlinkat(&self.fd, ""));
        read.map(OsStringExt::into_vec).map_err(|errno| match errno {
            // What the kernel says of an entry that is no link, asked in this way.
            Errno::ENOENT => self.wrong_kind("read the link"),
            errno => self.error("read the link", errno),
        })
    }

    /// Opens a regular file; `flags` are an access mode, and O_APPEND and O_TRUNC where wanted. FIFOs, sockets,
    /// devices and files of procfs and its like are refused without opening them.
    pub fn open(&self, flags: OFlag) -> Result<File, TargetError> {
        let writes = flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR);
        let operation = if writes { "write" } else { "read" };
        forbidden::check(&self.fd, operation, &self.name)?;
        if !self.found.is_file() {
            return Err(self.wrong_kind(operation));
        }
        // O_NONBLOCK: a file under a lease must not stop the session.
        let plain = (flags - OFlag::O_TRUNC) | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let reopen = || proc::reopen(&self.fd, plain);
        let file = if writes {
            self.change(operation, |_| reopen())?
        } else {
            self.root.access().run(|_| reopen()).map_err(|errno| self.error(operation, errno))?
        };
        if writes && flags.contains(OFlag::O_TRUNC) {
            ftruncate(&file, 0).map_err(|errno| self.error("truncate", errno))?;
        }
        Ok(File::from(file))
    }

    pub fn truncate(&self, size: u64) -> Result<(), TargetError> {
        let size = i64::try_from(size).map_err(|_| self.error("truncate", Errno::EFBIG))?;
        let file = self.open(OFlag::O_WRONLY)?;
        ftruncate(&file, size).map_err(|errno| self.error("truncate", errno))
    }

    /// Permission bits. Set-id bits are left out where they would be set with rights that the app has not.
    pub fn set_mode(&self, mode: u32) -> Result<(), TargetError> {
        let operation = "change the mode of";
        if !matches!(self.found.kind, Kind::File | Kind::Directory) {
            return Err(self.wrong_kind(operation));
        }
        self.change(operation, |hand| {
            let allowed = if hand == Hand::App { 0o7777 } else { 0o1777 };
            let mode = Mode::from_bits_truncate(mode & allowed);
            // fchmod takes no O_PATH descriptor, and fchmodat2 is younger than many kernels.
            fchmodat(AT_FDCWD, proc::by_descriptor(&self.fd).as_str(), mode, FchmodatFlags::FollowSymlink)
        })
    }

    /// Of a symlink: the link's own.
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<(), TargetError> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        self.change("change the owner of", |_| {
            fchownat(&self.fd, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
        })
    }

    /// Access and modification time; None leaves one as it is.
    pub fn set_times(&self, accessed: Option<Time>, modified: Option<Time>) -> Result<(), TargetError> {
        let operation = "set the time of";
        if self.found.kind == Kind::Symlink {
            return Err(self.wrong_kind(operation));
        }
        let spec = |time: Option<Time>| match time {
            Some((seconds, nanos)) => TimeSpec::new(seconds, nanos.into()),
            None => TimeSpec::UTIME_OMIT,
        };
        let (accessed, modified) = (spec(accessed), spec(modified));
        self.change(operation, |_| {
            let path = proc::by_descriptor(&self.fd);
            utimensat(AT_FDCWD, path.as_str(), &accessed, &modified, UtimensatFlags::FollowSymlink)
        })
    }

    /// With the agent's own rights a file with more than one name is left alone, as in `Parent`.
    fn change<T>(
        &self,
        operation: &'static str,
        run: impl Fn(Hand) -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        forbidden::check(&self.fd, operation, &self.name)?;
        self.root.identity().is_alive()?;
        let linked = self.found.kind != Kind::Directory && self.found.links > 1;
        let done = self.root.access().run(|hand| match hand {
            Hand::Agent if linked => Err(Errno::EMLINK),
            _ => run(hand),
        });
        done.map_err(|errno| match errno {
            Errno::EMLINK if linked => {
                TargetError::HardLinked { operation, path: self.name.as_slice().into() }
            }
            errno => self.error(operation, errno),
        })
    }

    fn wrong_kind(&self, operation: &'static str) -> TargetError {
        TargetError::WrongKind { operation, path: self.name.as_slice().into(), kind: self.found.kind }
    }

    fn error(&self, operation: &'static str, errno: Errno) -> TargetError {
        TargetError::Call { operation, path: self.name.as_slice().into(), errno }
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
