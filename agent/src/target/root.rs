//! The app's root directory, and the synced directory in it: where every path of the app is resolved.
//! A path is followed here to a *directory* only; the leaf belongs to `parent`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};

use devsync_protocol::target::Confinement;

use super::access::{Access, Hand};
use super::entry::Entry;
use super::error::TargetError;
use super::identity::Identity;
use super::metadata::{Kind, Metadata};
use super::parent::Parent;
use super::path;
use super::walk;
use crate::sys::ids::FsIdGuard;
use crate::sys::openat2::{self, Scope};

/// The device number of `ptmx` (Linux's devices.txt: 5, 2).
const PTMX: u64 = 5 << 8 | 2;

/// The root directory of one process, as a descriptor.
#[derive(Clone, Debug)]
pub struct TargetRoot {
    identity: Arc<Identity>,
    dir: Arc<OwnedFd>,
    confinement: Confinement,
}

impl TargetRoot {
    /// Opens it with the ids that open it, and finds out whether openat2 works here.
    pub fn open(identity: Arc<Identity>) -> Result<Self, TargetError> {
        let dir = identity.access().inspect(|| identity.proc().open_root())?;
        identity.still_there()?;
        let confinement = if openat2::is_available(&dir) { Confinement::Openat2 } else { Confinement::Walk };
        Ok(Self { identity, dir: Arc::new(dir), confinement })
    }

    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// Finds a directory, named as the app names it (`/srv/app`); links on the way mean what they mean to the app.
    pub fn sync_root(&self, directory: &[u8]) -> Result<SyncRoot, TargetError> {
        let plain = path::in_root(directory)?;
        let start = self.whole();
        let dir = start.open_directory("open", &plain)?;
        // A link cannot lead out of `/`, so there the app's absolute links may be followed too.
        let scope = if plain.is_empty() { Scope::InRoot } else { Scope::Beneath };
        Ok(SyncRoot { dir: Arc::new(dir), scope, name: Arc::from(path::join(b"/", &plain)), ..start })
    }

    /// As `sync_root`, and makes what is missing of it.
    pub fn make_sync_root(&self, directory: &[u8], mode: u32) -> Result<SyncRoot, TargetError> {
        let plain = path::in_root(directory)?;
        if !plain.is_empty() {
            self.whole().mkdir_all(&plain, mode)?;
        }
        self.sync_root(directory)
    }

    /// Opens a regular file for reading as the app would, links followed within the root: for looking at an
    /// executable, its interpreter and libraries.
    pub fn open_file(&self, file: &[u8]) -> Result<(File, Metadata), TargetError> {
        let plain = path::in_root(file)?;
        self.whole().open_followed(&plain)
    }

    /// A new terminal of the app's own /dev/pts, where its programs find it by name.
    pub fn open_terminal(&self) -> Result<OwnedFd, Errno> {
        let access = self.identity.access();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found =
            access.run(|_| openat(self.whole().resolve(b"dev/pts")?, "ptmx", flags, Mode::empty()))?;
        // The app may have put anything there: only the device itself is opened.
        let is_devpts = fstatfs(&found)?.filesystem_type() == DEVPTS_SUPER_MAGIC;
        let stat = fstat(&found)?;
        let is_device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
        if !is_devpts || !is_device || stat.st_rdev != PTMX {
            return Err(Errno::ENODEV);
        }
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        access.run(|_| crate::sys::proc::reopen(&found, flags))
    }

    fn whole(&self) -> SyncRoot {
        SyncRoot {
            root: self.clone(),
            dir: Arc::clone(&self.dir),
            scope: Scope::InRoot,
            name: Arc::from(&b"/"[..]),
        }
    }
}

/// The root directory itself; for a change of root, which needs no path.
impl AsFd for TargetRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A directory of the app that is synced. Everything below it is reached from its descriptor.
#[derive(Clone, Debug)]
pub struct SyncRoot {
    root: TargetRoot,
    dir: Arc<OwnedFd>,
    scope: Scope,
    name: Arc<[u8]>,
}

impl SyncRoot {
    pub fn target(&self) -> &TargetRoot {
        &self.root
    }

    pub fn identity(&self) -> &Identity {
        &self.root.identity
    }

    pub(super) fn access(&self) -> &Access {
        self.root.identity.access()
    }

    /// Its path as the app names it.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// See `Access::enter`: hold it on a thread that does many operations.
    pub fn enter(&self) -> Result<FsIdGuard, TargetError> {
        self.access().enter()
    }

    /// The directory that holds `path`'s leaf, and that leaf.
    pub fn parent<'p>(&self, path: &'p [u8]) -> Result<(Parent, &'p [u8]), TargetError> {
        let (directory, leaf) = path::split(path)?;
        Ok((self.directory(directory)?, leaf))
    }

    /// A directory itself; the empty path is the sync root.
    pub fn directory(&self, directory: &[u8]) -> Result<Parent, TargetError> {
        if !directory.is_empty() {
            path::check(directory)?;
        }
        self.root.identity.is_alive()?;
        let dir = self.open_directory("open", directory)?;
        Parent::new(self.clone(), dir, path::join(&self.name, directory))
    }

    /// An entry itself, a symlink too; the empty path is the sync root.
    pub fn entry(&self, path: &[u8]) -> Result<Entry, TargetError> {
        if path.is_empty() {
            return self.followed(path);
        }
        let (directory, leaf) = self.parent(path)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let name = path::join(&self.name, path);
        let opened = self.access().run(|_| openat(&directory, leaf, flags, Mode::empty()));
        let fd = opened.map_err(|errno| self.error("open", path, errno))?;
        Entry::new(self.clone(), fd, name)
    }

    /// What an entry is in the end: symlinks are followed as the app would, within the root. Where openat2 is missing
    /// a symlink is refused.
    pub fn followed(&self, path: &[u8]) -> Result<Entry, TargetError> {
        if !path.is_empty() {
            path::check(path)?;
        }
        self.root.identity.is_alive()?;
        if self.root.confinement == Confinement::Walk && !path.is_empty() {
            let entry = self.entry(path)?;
            return match entry.metadata().kind {
                Kind::Symlink => Err(self.error("open", path, Errno::ELOOP)),
                _ => Ok(entry),
            };
        }
        let from = if path.is_empty() { b"." } else { path };
        let opened = self.access().run(|_: Hand| openat2::open(&self.dir, from, OFlag::O_PATH, self.scope));
        let fd = opened.map_err(|errno| self.error("open", path, errno))?;
        Entry::new(self.clone(), fd, path::join(&self.name, path))
    }

    /// Makes what is missing of a path of directories, one by one; links on the way may not lead out.
    pub fn mkdir_all(&self, directory: &[u8], mode: u32) -> Result<(), TargetError> {
        path::check(directory)?;
        self.root.identity.is_alive()?;
        let ends = (0..directory.len()).filter(|i| directory[*i] == b'/').chain([directory.len()]);
        let mut missing: Vec<usize> = ends.collect();
        let present = missing.iter().rposition(|end| self.open_directory("open", &directory[..*end]).is_ok());
        for end in missing.split_off(present.map_or(0, |at| at + 1)) {
            let (parent, leaf) = self.parent(&directory[..end])?;
            match parent.mkdir(leaf, mode) {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                done => done?,
            }
        }
        self.open_directory("open", directory).map(drop)
    }

    fn open_directory(&self, operation: &'static str, directory: &[u8]) -> Result<OwnedFd, TargetError> {
        self.access()
            .run(|_| self.resolve(directory))
            .map_err(|errno| self.error(operation, directory, errno))
    }

    fn resolve(&self, directory: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if directory.is_empty() { b"." } else { directory };
        match self.root.confinement {
            Confinement::Openat2 => {
                openat2::open(&self.dir, path, OFlag::O_PATH | OFlag::O_DIRECTORY, self.scope)
            }
            Confinement::Walk => walk::open_directory(&self.dir, directory),
        }
    }

    fn open_followed(&self, file: &[u8]) -> Result<(File, Metadata), TargetError> {
        let (directory, leaf) = path::split(file)?;
        if self.root.confinement == Confinement::Walk {
            return Parent::new(
                self.clone(),
                self.open_directory("read", directory)?,
                path::join(&self.name, directory),
            )?
            .open_read(leaf);
        }
        let opened = self.access().run(|_: Hand| openat2::open(&self.dir, file, OFlag::O_PATH, self.scope));
        let fd = opened.map_err(|errno| self.error("read", file, errno))?;
        super::parent::read_regular(self.access(), fd, &path::join(&self.name, file))
    }

    /// Gives the resolution's errors their meaning.
    fn error(&self, operation: &'static str, directory: &[u8], errno: Errno) -> TargetError {
        let path = path::join(&self.name, directory).as_slice().into();
        match (errno, self.root.confinement) {
            (Errno::EXDEV, _) => TargetError::Escapes { operation, path },
            (Errno::ELOOP, Confinement::Walk) => TargetError::SymlinkOnTheWay { operation, path },
            (Errno::EAGAIN, _) => TargetError::Racing { operation, path },
            (errno, _) => TargetError::Call { operation, path, errno },
        }
    }
}

impl AsFd for SyncRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}
