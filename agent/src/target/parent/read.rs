//! Reading in a directory: file contents, links, names. Nothing but a regular file is ever opened.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use nix::dir::{Dir, OwningIter, Type};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::super::access::Access;
use super::super::error::TargetError;
use super::super::metadata::{Kind, Metadata};
use super::{Parent, forbidden};
use crate::sys::proc;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    /// None where the file system does not say it: ask `metadata`.
    pub kind: Option<Kind>,
}

impl Parent {
    /// Opens a regular file for reading; FIFOs, sockets and devices are refused without opening them.
    pub fn open_read(&self, leaf: &[u8]) -> Result<(File, Metadata), TargetError> {
        let (fd, found) = self.pin("read", leaf)?;
        reopen_regular(self.access(), &fd, found, &self.path(leaf))
    }

    /// What a symlink says, as bytes.
    pub fn read_link(&self, leaf: &[u8]) -> Result<Vec<u8>, TargetError> {
        self.call("read the link", leaf, |_| readlinkat(&self.inner.dir, leaf)).map(OsStringExt::into_vec)
    }

    /// The same piece by piece, for a directory of any size. Entries are what readdir(3) gives, with errors in place.
    pub fn listing(&self) -> Result<Listing, TargetError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = self.access().run(|_| openat(&self.inner.dir, ".", flags, Mode::empty()));
        let entries = opened.and_then(Dir::from_fd).map_err(|errno| self.error("list", b"", errno))?;
        Ok(Listing { directory: self.clone(), entries: entries.into_iter() })
    }

    /// The names in the directory, unsorted, without `.` and `..`; an error when there are more than `limit`.
    pub fn read_dir(&self, limit: usize) -> Result<Vec<DirEntry>, TargetError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = self.access().run(|_| openat(&self.inner.dir, ".", flags, Mode::empty()));
        let listing = opened.and_then(Dir::from_fd).map_err(|errno| self.error("list", b"", errno))?;
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|errno| self.error("list", b"", errno))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if entries.len() == limit {
                return Err(TargetError::TooMany { path: self.name().into(), limit });
            }
            entries.push(DirEntry { name: name.to_vec(), kind: entry.file_type().map(kind) });
        }
        Ok(entries)
    }
}

/// A directory that is being read, `.` and `..` included.
#[derive(Debug)]
pub struct Listing {
    directory: Parent,
    entries: OwningIter,
}

impl Listing {
    pub fn directory(&self) -> &Parent {
        &self.directory
    }
}

impl Iterator for Listing {
    type Item = Result<Vec<u8>, TargetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let name = entry.map(|entry| entry.file_name().to_bytes().to_vec());
        Some(name.map_err(|errno| self.directory.error("list", b"", errno)))
    }
}

/// Opens what an O_PATH descriptor refers to, if it is a regular file of an ordinary file system.
pub(in super::super) fn read_regular(
    access: &Access,
    fd: OwnedFd,
    name: &[u8],
) -> Result<(File, Metadata), TargetError> {
    forbidden::check(&fd, "read", name)?;
    let found =
        fstat(&fd).map_err(|errno| TargetError::Call { operation: "read", path: name.into(), errno })?;
    reopen_regular(access, &fd, found.into(), name)
}

fn reopen_regular(
    access: &Access,
    fd: &OwnedFd,
    found: Metadata,
    name: &[u8],
) -> Result<(File, Metadata), TargetError> {
    let operation = "read";
    if !found.is_file() {
        return Err(TargetError::WrongKind { operation, path: name.into(), kind: found.kind });
    }
    // O_NONBLOCK: a file under a lease must not stop the session.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match access.run(|_| proc::reopen(fd, flags)) {
        Ok(file) => Ok((File::from(file), found)),
        Err(errno) => Err(TargetError::Call { operation, path: name.into(), errno }),
    }
}

fn kind(of: Type) -> Kind {
    match of {
        Type::File => Kind::File,
        Type::Directory => Kind::Directory,
        Type::Symlink => Kind::Symlink,
        Type::Fifo => Kind::Fifo,
        Type::Socket => Kind::Socket,
        Type::CharacterDevice | Type::BlockDevice => Kind::Device,
    }
}
