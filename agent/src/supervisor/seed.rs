//! `devsync-run seed`: fills a workspace volume with a directory of the image, before the app's container starts.
//!
//! The copy grows beside its destination and is renamed into place when it is complete, so a destination that is there
//! is complete, and is left alone: a pod's init container may run again, and what was synced since is kept.

use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, geteuid};

use crate::sys::mountpoint;

/// More entries, bytes or levels than an app's directory has: FROM is the wrong one.
const MAX_ENTRIES: u64 = 1_000_000;
const MAX_BYTES: u64 = 16 << 30;
const MAX_DEPTH: usize = 256;
/// Names that are told of each kind; the rest is counted.
const MAX_NAMED: usize = 20;
/// The permissions that a copy keeps; set-id bits are for the owner that a file had.
const FILE_BITS: u32 = 0o777;
const DIR_BITS: u32 = 0o1777;
/// Who owns a directory of a workspace works in it, also where the image's owner could not.
const OWNERS: u32 = 0o700;

#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {why}", path.display())]
    Place { path: PathBuf, why: &'static str },
    #[error("as user {uid}, these cannot be read: {paths}")]
    Unreadable { uid: u32, paths: Names },
    #[error("{} has more than {limit}", from.display())]
    TooLarge { from: PathBuf, limit: String },
}

impl SeedError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "raise the sizeLimit of the workspace's emptyDir, or name a smaller directory for the workspace"
            }
            Self::Io { .. } => {
                "look at the volume that TO is in: the container's user must be able to write there"
            }
            Self::Place { .. } => "devsync-run seed FROM TO: TO is a new directory in a volume",
            Self::Unreadable { .. } => {
                "let the image's files be readable for its user (chmod -R a+rX), name another directory for the \
                 workspace, or run the container as their owner"
            }
            Self::TooLarge { .. } => "name the directory of the app's own files for the workspace",
        }
    }
}

/// The first few of many paths.
#[derive(Debug, Default)]
pub struct Names {
    first: Vec<PathBuf>,
    count: usize,
}

impl Names {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(path.to_owned());
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, path) in self.first.iter().enumerate() {
            let path = path.as_os_str().as_encoded_bytes();
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, devsync_protocol::path::display(path))?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SeedError {
    let path = path.to_owned();
    move |source| SeedError::Io { what, path, source }
}

/// Copies the directory `from` to `to`, unless `to` is there. Lines for the log go to `say`.
pub fn seed(from: &Path, to: &Path, say: &mut dyn FnMut(&str)) -> Result<(), SeedError> {
    if is_seeded(to)? {
        say(&format!("{} is there already: nothing is copied over it", to.display()));
        return Ok(());
    }
    let part = beside(to, ".part")?;
    let mut copy = Copy::new(from, beside(to, ".file")?);
    match source(from, to)? {
        Some(from) => copy.directory(&from, &part, 0)?,
        None => {
            say(&format!("{} is not in the image: {} begins empty", from.display(), to.display()));
            make_directory(&part)?;
        }
    }
    if copy.special.count > 0 {
        say(&format!("no files, and left out: {}", copy.special));
    }
    if copy.mounts.count > 0 {
        say(&format!("mounted from elsewhere, and left empty: {}", copy.mounts));
    }
    if copy.unreadable.count > 0 {
        return Err(SeedError::Unreadable { uid: geteuid().as_raw(), paths: copy.unreadable });
    }
    fs::rename(&part, to).map_err(failed("cannot put into place", to))?;
    say(&format!(
        "{} has {} entries, {} bytes of {}",
        to.display(),
        copy.entries,
        copy.bytes,
        from.display()
    ));
    Ok(())
}

/// A mount point would be a destination that is always there, and that nothing can be renamed to.
fn is_seeded(to: &Path) -> Result<bool, SeedError> {
    let place = |why| SeedError::Place { path: to.to_owned(), why };
    match fs::symlink_metadata(to) {
        Ok(metadata) if !metadata.is_dir() => Err(place("it is no directory")),
        Ok(_) => {
            let (Some(dir), Some(name)) = (to.parent(), to.file_name()) else {
                return Err(place("`/` is no place for a copy"));
            };
            let dir = File::open(dir).map_err(failed("cannot open", dir))?;
            let mounted = mountpoint::is_mount_point(&dir, name.as_encoded_bytes());
            match mounted.map_err(|errno| failed("cannot look at", to)(errno.into()))? {
                true => {
                    Err(place("it is a mount point: name a directory that is not there yet, in the volume"))
                }
                false => Ok(true),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("cannot look at", to)(error)),
    }
}

/// The directory that is copied, without symlinks on the way; `None` where the image has none.
fn source(from: &Path, to: &Path) -> Result<Option<PathBuf>, SeedError> {
    let place = |why| SeedError::Place { path: from.to_owned(), why };
    let real = match fs::canonicalize(from) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("cannot look at", from)(error)),
    };
    if !real.is_dir() {
        return Err(place("it is no directory"));
    }
    if real.parent().is_none() {
        return Err(place("a whole root is not copied, only a directory in it"));
    }
    match to.parent().and_then(|dir| fs::canonicalize(dir).ok()) {
        Some(dir) if dir.starts_with(&real) => Err(place("TO lies in it")),
        _ => Ok(Some(real)),
    }
}

fn beside(to: &Path, suffix: &str) -> Result<PathBuf, SeedError> {
    let why = "it has no name of its own";
    let name = to.file_name().ok_or_else(|| SeedError::Place { path: to.to_owned(), why })?;
    let mut name = name.to_owned();
    name.push(suffix);
    Ok(to.with_file_name(name))
}

/// One that was ended while it copied may have left it, with its last mode.
fn make_directory(path: &Path) -> Result<(), SeedError> {
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("cannot make the directory", path)(error)),
    }
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(failed("cannot open", path))
}

struct Copy {
    from: PathBuf,
    /// Where a file is written before it is renamed to its place.
    temp: PathBuf,
    /// Root keeps the owners that the image has, for apps that give up being root; others own what they copy.
    is_root: bool,
    entries: u64,
    bytes: u64,
    special: Names,
    mounts: Names,
    unreadable: Names,
}

impl Copy {
    fn new(from: &Path, temp: PathBuf) -> Self {
        Self {
            from: from.to_owned(),
            temp,
            is_root: geteuid().is_root(),
            entries: 0,
            bytes: 0,
            special: Names::default(),
            mounts: Names::default(),
            unreadable: Names::default(),
        }
    }

    fn directory(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), SeedError> {
        if depth > MAX_DEPTH {
            return Err(self.too_large(format!("{MAX_DEPTH} levels")));
        }
        make_directory(to)?;
        let own = fs::symlink_metadata(from).map_err(failed("cannot look at", from))?;
        let listing = match fs::read_dir(from) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unreadable.add(from);
                return Ok(());
            }
            Err(error) => return Err(failed("cannot list", from)(error)),
        };
        for entry in listing {
            let name = entry.map_err(failed("cannot list", from))?.file_name();
            self.entry(&from.join(&name), &to.join(&name), &own, depth)?;
        }
        self.finish(to, &own, own.mode() & DIR_BITS | OWNERS)
    }

    fn entry(&mut self, from: &Path, to: &Path, parent: &Metadata, depth: usize) -> Result<(), SeedError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(self.too_large(format!("{MAX_ENTRIES} entries")));
        }
        let metadata = match fs::symlink_metadata(from) {
            Ok(metadata) => metadata,
            // A directory that may be listed and not entered.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unreadable.add(from);
                return Ok(());
            }
            Err(error) => return Err(failed("cannot look at", from)(error)),
        };
        let kind = metadata.file_type();
        if kind.is_dir() && metadata.dev() != parent.dev() {
            self.mounts.add(from);
            make_directory(to)
        } else if kind.is_dir() {
            self.directory(from, to, depth + 1)
        } else if kind.is_symlink() {
            self.link(from, to, &metadata)
        } else if kind.is_file() {
            self.file(from, to, &metadata)
        } else {
            debug_assert!(
                kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device()
            );
            self.special.add(from);
            Ok(())
        }
    }

    fn link(&mut self, from: &Path, to: &Path, metadata: &Metadata) -> Result<(), SeedError> {
        let target = fs::read_link(from).map_err(failed("cannot read the link", from))?;
        if fs::read_link(to).is_ok_and(|there| there == target) {
            return Ok(());
        }
        self.clear_temp()?;
        std::os::unix::fs::symlink(target, &self.temp).map_err(failed("cannot make the link", to))?;
        self.own(&self.temp, metadata);
        self.set_times(&self.temp, metadata)?;
        fs::rename(&self.temp, to).map_err(failed("cannot put into place", to))
    }

    fn file(&mut self, from: &Path, to: &Path, metadata: &Metadata) -> Result<(), SeedError> {
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.bytes > MAX_BYTES {
            return Err(self.too_large(format!("{} GiB", MAX_BYTES >> 30)));
        }
        let mode = metadata.mode() & FILE_BITS;
        if fs::symlink_metadata(to).is_ok_and(|there| is_copy(&there, metadata)) {
            return Ok(());
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut source = match fs::OpenOptions::new().read(true).custom_flags(flags).open(from) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unreadable.add(from);
                return Ok(());
            }
            Err(error) => return Err(failed("cannot open", from)(error)),
        };
        self.clear_temp()?;
        let mut file = File::create_new(&self.temp).map_err(failed("cannot write", to))?;
        io::copy(&mut source, &mut file).map_err(failed("cannot write", to))?;
        drop(file);
        self.finish(&self.temp, metadata, mode)?;
        fs::rename(&self.temp, to).map_err(failed("cannot put into place", to))
    }

    /// Owner first, which may clear bits of the mode; times last, which everything else changes.
    fn finish(&self, path: &Path, like: &Metadata, mode: u32) -> Result<(), SeedError> {
        self.own(path, like);
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(failed("cannot set the mode of", path))?;
        self.set_times(path, like)
    }

    fn own(&self, path: &Path, like: &Metadata) {
        if self.is_root {
            // Root without CHOWN owns what it copies, as any other user does.
            let (uid, gid) = (Uid::from_raw(like.uid()), Gid::from_raw(like.gid()));
            let _ = std::os::unix::fs::lchown(path, Some(uid.as_raw()), Some(gid.as_raw()));
        }
    }

    fn set_times(&self, path: &Path, like: &Metadata) -> Result<(), SeedError> {
        let accessed = TimeSpec::new(like.atime(), like.atime_nsec());
        let modified = TimeSpec::new(like.mtime(), like.mtime_nsec());
        let set = utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::NoFollowSymlink);
        set.map_err(|errno| failed("cannot set the time of", path)(errno.into()))
    }

    fn clear_temp(&self) -> Result<(), SeedError> {
        match fs::remove_file(&self.temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove what is left at", &self.temp)(error))
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self, limit: String) -> SeedError {
        SeedError::TooLarge { from: self.from.clone(), limit }
    }
}

/// Copied by one that was ended before it was done: its time is set last.
fn is_copy(there: &Metadata, from: &Metadata) -> bool {
    there.is_file()
        && there.len() == from.len()
        && (there.mtime(), there.mtime_nsec()) == (from.mtime(), from.mtime_nsec())
        && there.mode() & FILE_BITS == from.mode() & FILE_BITS
}
