//! What differs between Linux, macOS and Windows about files: names as bytes, modes, links, stamps, limits.
//!
//! The only file of the client's file handling with `cfg(unix)` or `cfg(windows)` in it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use devsync_protocol::path::RelPath;
use serde::{Deserialize, Serialize};

/// What the file system says about a file without reading it. Two equal stamps mean the same content, except
/// within the clock's granularity (see [`crate::local::index`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
    /// As `mtime_ns`; 0 where the system has none. Cannot be set by a program, unlike the other.
    pub ctime_ns: i64,
    /// 0 where the system has none.
    pub inode: u64,
}

impl Stamp {
    /// The time of the last change of content that nobody can have set back.
    pub(crate) fn changed_ns(&self) -> i64 {
        if self.ctime_ns == 0 { self.mtime_ns } else { self.ctime_ns }
    }
}

/// The type of what lies at a path, by lstat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    File,
    Dir,
    Symlink,
    /// FIFO, socket or device; the word is for messages.
    Special(&'static str),
}

#[cfg(unix)]
mod imp {
    use super::*;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

    pub(crate) fn name_bytes(name: &OsStr) -> Option<&[u8]> {
        Some(name.as_bytes())
    }

    pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(bytes))
    }

    pub(crate) fn path_bytes(path: &Path) -> Option<Vec<u8>> {
        Some(path.as_os_str().as_bytes().to_vec())
    }

    pub(crate) fn stamp(meta: &Metadata) -> Stamp {
        let ns = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        Stamp {
            size: meta.len(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }

    pub(crate) fn mode(meta: &Metadata) -> u16 {
        (meta.mode() & 0o777) as u16
    }

    pub(crate) fn has_other_names(meta: &Metadata) -> bool {
        meta.nlink() > 1
    }

    pub(crate) fn special(kind: std::fs::FileType) -> &'static str {
        if kind.is_fifo() {
            "FIFO"
        } else if kind.is_socket() {
            "socket"
        } else {
            "device"
        }
    }

    /// O_NONBLOCK: a file that became a FIFO since it was looked at must not hang the open.
    pub(crate) fn open_read(path: &Path) -> io::Result<File> {
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
    }

    pub(crate) fn link_target(path: &Path) -> io::Result<Option<Vec<u8>>> {
        std::fs::read_link(path).map(|t| Some(t.into_os_string().into_vec()))
    }

    /// ENOSPC is how inotify says that no watch is left, EMFILE that no instance is.
    pub(crate) fn is_watch_limit(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EMFILE | libc::ENFILE))
    }

    pub(crate) fn is_too_long(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::ENAMETOOLONG)
    }

    /// What open says of a link (with O_NOFOLLOW), a socket, a device without driver.
    pub(crate) fn is_no_file(error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::ENODEV))
    }
}

#[cfg(not(unix))]
mod imp {
    use super::*;
    use std::time::UNIX_EPOCH;

    pub(crate) fn name_bytes(name: &OsStr) -> Option<&[u8]> {
        name.to_str().map(str::as_bytes)
    }

    pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
        PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn path_bytes(path: &Path) -> Option<Vec<u8>> {
        path.to_str().map(|p| p.replace('\\', "/").into_bytes())
    }

    pub(crate) fn stamp(meta: &Metadata) -> Stamp {
        let since = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mtime_ns = since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        Stamp { size: meta.len(), mtime_ns, ctime_ns: 0, inode: 0 }
    }

    pub(crate) fn mode(meta: &Metadata) -> u16 {
        if meta.is_dir() { 0o755 } else { 0o644 }
    }

    pub(crate) fn has_other_names(_: &Metadata) -> bool {
        false
    }

    pub(crate) fn special(_: std::fs::FileType) -> &'static str {
        "special file"
    }

    pub(crate) fn open_read(path: &Path) -> io::Result<File> {
        File::open(path)
    }

    pub(crate) fn link_target(path: &Path) -> io::Result<Option<Vec<u8>>> {
        std::fs::read_link(path).map(|t| path_bytes(&t))
    }

    pub(crate) fn is_watch_limit(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn is_too_long(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn is_no_file(_: &io::Error) -> bool {
        false
    }
}

pub(crate) use imp::{
    has_other_names, is_no_file, is_too_long, is_watch_limit, link_target, mode, open_read, stamp,
};

/// A name as it travels; `None` where it has no form that another system understands.
pub(crate) fn name_bytes(name: &OsStr) -> Option<&[u8]> {
    imp::name_bytes(name)
}

/// The bytes of a path with `/` between names.
pub(crate) fn path_bytes(path: &Path) -> Option<Vec<u8>> {
    imp::path_bytes(path)
}

/// A path made of bytes as [`path_bytes`] gives them.
pub(crate) fn bytes_to_path(bytes: &[u8]) -> PathBuf {
    imp::bytes_to_path(bytes)
}

/// Where `path` lies on this machine; `None` is the root itself.
pub fn absolute(root: &Path, path: Option<&RelPath>) -> PathBuf {
    match path {
        Some(path) => root.join(imp::bytes_to_path(path.as_bytes())),
        None => root.to_path_buf(),
    }
}

/// The path below `root`: `Ok(None)` is the root itself, `Err` what lies outside or cannot travel.
pub(crate) fn relative(root: &Path, path: &Path) -> Result<Option<RelPath>, ()> {
    let rest = path.strip_prefix(root).map_err(|_| ())?;
    let bytes = imp::path_bytes(rest).ok_or(())?;
    if bytes.is_empty() { Ok(None) } else { RelPath::new(bytes).map(Some).map_err(|_| ()) }
}

/// The type that lstat's metadata tell.
pub(crate) fn type_of(kind: std::fs::FileType) -> Type {
    if kind.is_file() {
        Type::File
    } else if kind.is_dir() {
        Type::Dir
    } else if kind.is_symlink() {
        Type::Symlink
    } else {
        Type::Special(imp::special(kind))
    }
}

/// The name and present value of the limit on watches, for messages; empty where there is none.
pub(crate) fn watch_limit(name: &str) -> String {
    let file = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(file).map(|v| v.trim().to_owned()).unwrap_or_default()
}

/// True where the system's own notification covers all that lies below a directory with one watch.
pub(crate) const RECURSIVE_WATCH: bool = cfg!(any(target_os = "macos", target_os = "windows"));

/// True where file systems usually ignore case, so that git matches its patterns so too.
pub(crate) const IGNORE_CASE: bool = cfg!(any(target_os = "macos", target_os = "windows"));
