//! A directory below a sync root, held open, and every operation on a single name in it that is never followed.
//! Bulk work in one directory costs one resolution. What to do is decided elsewhere.

mod change;
mod create;
pub(super) mod forbidden;
mod read;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::access::{Access, Hand};
use super::error::TargetError;
use super::metadata::{Kind, Metadata};
use super::path;
use super::root::SyncRoot;

pub use create::is_temp_name;
pub(crate) use create::temp_name;
pub(super) use read::read_regular;
pub use read::{DirEntry, Listing};

/// Cheap to clone: the clones share one descriptor.
///
/// The handle is the directory and not its path: keep it for a batch, not for a session, or a directory that
/// the app replaced is still written to.
#[derive(Clone, Debug)]
pub struct Parent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: SyncRoot,
    dir: OwnedFd,
    /// As the app names it; for messages.
    name: Vec<u8>,
}

impl Parent {
    /// Refuses directories of procfs, sysfs and their like.
    pub(super) fn new(root: SyncRoot, dir: OwnedFd, name: Vec<u8>) -> Result<Self, TargetError> {
        forbidden::check(&dir, "enter", &name)?;
        Ok(Self { inner: Arc::new(Inner { root, dir, name }) })
    }

    /// Its path as the app names it.
    pub fn name(&self) -> &[u8] {
        &self.inner.name
    }

    pub fn root(&self) -> &SyncRoot {
        &self.inner.root
    }

    /// A directory in this one; a symlink is refused.
    pub fn directory(&self, leaf: &[u8]) -> Result<Self, TargetError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = self.call("open", leaf, |_| openat(&self.inner.dir, leaf, flags, Mode::empty()))?;
        Self::new(self.inner.root.clone(), dir, self.path(leaf))
    }

    /// What lies under a name: lstat.
    pub fn metadata(&self, leaf: &[u8]) -> Result<Metadata, TargetError> {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
        self.call("stat", leaf, |_| fstatat(&self.inner.dir, leaf, flags)).map(Metadata::from)
    }

    /// As `metadata`, and None when there is nothing.
    pub fn find(&self, leaf: &[u8]) -> Result<Option<Metadata>, TargetError> {
        match self.metadata(leaf) {
            Err(error) if error.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// The directory's own metadata.
    pub fn own_metadata(&self) -> Result<Metadata, TargetError> {
        fstat(&self.inner.dir).map(Metadata::from).map_err(|errno| self.error("stat", b"", errno))
    }

    fn access(&self) -> &Access {
        self.inner.root.access()
    }

    fn path(&self, leaf: &[u8]) -> Vec<u8> {
        path::join(&self.inner.name, leaf)
    }

    fn error(&self, operation: &'static str, leaf: &[u8], errno: Errno) -> TargetError {
        TargetError::Call { operation, path: self.path(leaf).as_slice().into(), errno }
    }

    fn wrong_kind(&self, operation: &'static str, leaf: &[u8], kind: Kind) -> TargetError {
        TargetError::WrongKind { operation, path: self.path(leaf).as_slice().into(), kind }
    }

    /// Checks the leaf, runs the operation with the right ids, names it in the error.
    fn call<T>(
        &self,
        operation: &'static str,
        leaf: &[u8],
        run: impl Fn(Hand) -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        path::check_leaf(leaf)?;
        self.access().run(run).map_err(|errno| self.error(operation, leaf, errno))
    }

    /// Opens the leaf itself, whatever it is, without touching it.
    fn pin(&self, operation: &'static str, leaf: &[u8]) -> Result<(OwnedFd, Metadata), TargetError> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = self.call(operation, leaf, |_| openat(&self.inner.dir, leaf, flags, Mode::empty()))?;
        forbidden::check(&fd, operation, &self.path(leaf))?;
        let stat = fstat(&fd).map_err(|errno| self.error(operation, leaf, errno))?;
        Ok((fd, stat.into()))
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.dir.as_fd()
    }
}
