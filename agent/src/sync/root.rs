//! A sync root of a session: its directory in the app's root, its ledger and how it is to be written.

use std::io::Read;
use std::path::Path;

use devsync_protocol::delta::DeltaError;
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::{RootId, RootOptions};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{MODE_MASK, Node};
use globset::{Glob, GlobSet, GlobSetBuilder};
use nix::errno::Errno;
use thiserror::Error;

use super::compare::Comparison;
use super::ledger::{Ledger, Stamp};
use super::lock::{Lock, LockError};
use super::marks::{self, Marks};
use crate::target::error::TargetError;
use crate::target::find::container;
use crate::target::metadata::{Kind, Metadata};
use crate::target::parent::Parent;
use crate::target::root::SyncRoot;

/// Longest glob, in bytes.
const MAX_GLOB: usize = 4096;

#[derive(Debug, Error)]
pub(crate) enum RootError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the glob {glob} cannot be read")]
    Glob { glob: String, source: globset::Error },
    #[error("the agent's record of {root} cannot be kept in {path}")]
    Ledger { root: String, path: String, source: std::io::Error },
    #[error("cannot read {path} in the pod")]
    Read { path: String, source: std::io::Error },
    #[error("cannot write {path} in the pod")]
    Write { path: String, source: std::io::Error },
    #[error("the agent cannot note where its temporary files are")]
    Marks { source: std::io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Delta(#[from] DeltaError),
    #[error("a file is not what its digest says")]
    NotItsDigest,
    /// The pod's file changed between the check and the commit.
    #[error("it changed in the pod meanwhile")]
    Changed,
    /// Something stays, since it is not devsync's.
    #[error("{0}")]
    Kept(&'static str),
    #[error("the client broke the protocol: {0}")]
    Protocol(&'static str),
}

/// A sync root and what is known of it.
pub(crate) struct Root {
    pub(crate) id: RootId,
    pub(crate) dir: SyncRoot,
    pub(crate) ledger: Ledger,
    pub(crate) marks: Marks,
    pub(crate) options: RootOptions,
    pub(crate) comparison: Option<Comparison>,
    inplace: GlobSet,
    /// The directory that was looked into last: bulk work comes in path order.
    cached: Option<(Vec<u8>, Parent)>,
    _lock: Option<Lock>,
}

impl Root {
    /// Opens the record of `dir`, and removes what an agent that was killed left there. `state` is the agent's
    /// directory, `holder` names this session to a second one.
    pub(crate) fn open(
        id: RootId,
        dir: SyncRoot,
        options: RootOptions,
        state: &Path,
        holder: &str,
    ) -> Result<Self, RootError> {
        let name = record_name(&dir)?;
        let file = |kind: &str| state.join(format!("{name}.{kind}"));
        let lock = if options.dry_run { None } else { Some(Lock::take(&file("lock"), holder)?) };
        let path = file("ledger");
        // A session that only looks may run beside one that writes, and leaves the record to that one.
        let ledger =
            if options.dry_run { Ok(Ledger::read(path.clone())) } else { Ledger::open(path.clone()) };
        let ledger = ledger.map_err(|source| RootError::Ledger {
            root: devsync_protocol::path::display(dir.name()),
            path: path.display().to_string(),
            source,
        })?;
        let marks = match options.dry_run {
            true => Marks::none(),
            false => sweep_all(&dir, &file("marks")).map_err(|source| RootError::Marks { source })?,
        };
        let inplace = inplace_globs(&options.inplace)?;
        Ok(Self { id, dir, ledger, marks, options, comparison: None, inplace, cached: None, _lock: lock })
    }

    pub(crate) fn wants_in_place(&self, path: &RelPath) -> bool {
        use std::os::unix::ffi::OsStrExt;
        !self.inplace.is_empty() && self.inplace.is_match(std::ffi::OsStr::from_bytes(path))
    }

    /// A directory below the root; empty is the root itself.
    pub(crate) fn directory(&mut self, dir: &[u8]) -> Result<&Parent, TargetError> {
        let cached = match self.cached.take() {
            Some((name, parent)) if name == dir => (name, parent),
            _ => (dir.to_vec(), self.dir.directory(dir)?),
        };
        Ok(&self.cached.insert(cached).1)
    }

    /// The directory of `path`, and its name in it.
    pub(crate) fn parent<'p>(&mut self, path: &'p RelPath) -> Result<(&Parent, &'p [u8]), TargetError> {
        let bytes = path.as_bytes();
        let cut = bytes.iter().rposition(|b| *b == b'/');
        let (dir, leaf) = cut.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
        Ok((self.directory(dir)?, leaf))
    }

    /// Drops the remembered directory: something on its path was replaced.
    pub(crate) fn forget(&mut self) {
        self.cached = None;
    }

    /// What lies at `path`; `None` where nothing does.
    pub(crate) fn look(&mut self, path: &RelPath) -> Result<Option<Metadata>, TargetError> {
        let looked = self.parent(path).and_then(|(parent, leaf)| parent.metadata(leaf));
        match looked {
            Ok(metadata) => Ok(Some(metadata)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The digest of the regular file at `path`, read now.
    pub(crate) fn digest(&mut self, path: &RelPath) -> Result<Digest, RootError> {
        let (parent, leaf) = self.parent(path)?;
        let (mut file, _) = parent.open_read(leaf)?;
        digest_reader(&mut file).map_err(|source| RootError::Read { path: path.to_string(), source })
    }

    /// The node that lies at `path` now; `None` where there is none, or nothing that can be read: the app may
    /// change it at any moment, and one file must not stop the others.
    pub(crate) fn read_now(&mut self, path: &RelPath) -> Result<Option<Node>, RootError> {
        let node = match self.look(path) {
            Ok(None) => return Ok(None),
            Ok(Some(metadata)) => self.read_node(path, &metadata),
            Err(error) => Err(error.into()),
        };
        match node {
            Err(error) if error.is_fatal() => Err(error),
            node => Ok(node.unwrap_or_default()),
        }
    }

    /// The node that lies at `path` now, read anew; FIFOs, sockets and devices count as nothing.
    pub(crate) fn read_node(
        &mut self,
        path: &RelPath,
        metadata: &Metadata,
    ) -> Result<Option<Node>, RootError> {
        let mode = (metadata.mode as u16) & MODE_MASK;
        Ok(match metadata.kind {
            Kind::File => Some(Node::File { mode, size: metadata.size, digest: self.digest(path)? }),
            Kind::Directory => Some(Node::Dir { mode }),
            Kind::Symlink => {
                let (parent, leaf) = self.parent(path)?;
                Some(Node::Symlink { target: parent.read_link(leaf)? })
            }
            _ => None,
        })
    }
}

impl RootError {
    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        if let Self::Target(error) = self { error.hint() } else { None }
    }

    /// True where no other path will fare better.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Self::Target(TargetError::Vanished { .. } | TargetError::Ids(_)) | Self::Marks { .. })
    }
}

/// True where a path has nothing at its end, or not even a directory on its way.
pub(crate) fn is_missing(error: &TargetError) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR))
}

/// Reads to the end in bounded pieces.
pub(crate) fn read_pieces(reader: &mut impl Read, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn digest_reader(reader: &mut impl Read) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    read_pieces(reader, |piece| hasher.update(piece))?;
    Ok(hasher.finish())
}

/// What identifies this version of a file.
pub(crate) fn stamp(metadata: &Metadata) -> Stamp {
    let nanos = |(seconds, nanos): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    // A directory's times and size change with every entry: its inode and mode identify it.
    let is_dir = metadata.is_directory();
    Stamp {
        ino: metadata.inode,
        size: if is_dir { 0 } else { metadata.size },
        mode: metadata.mode,
        mtime_ns: if is_dir { 0 } else { nanos(metadata.mtime) },
        ctime_ns: if is_dir { 0 } else { nanos(metadata.ctime) },
    }
}

/// Names a root's record after the container (its mount namespace) and the directory, so that a new container with
/// the image's files in it is not taken for the old one.
fn record_name(dir: &SyncRoot) -> Result<String, TargetError> {
    let metadata = dir.directory(b"")?.own_metadata()?;
    let mut hasher = Hasher::new();
    for part in [dir.identity().mount_namespace(), metadata.device, metadata.inode] {
        hasher.update(&part.to_le_bytes());
    }
    // Numbers of namespaces and devices are used again; a container's id is not.
    let container = dir.identity().proc().cgroup().ok().and_then(|cgroup| container::id(&cgroup));
    hasher.update(container.unwrap_or_default().as_bytes());
    hasher.update(dir.name());
    Ok(hasher.finish().to_string()[..32].to_owned())
}

/// Removes what an earlier agent left. What cannot be looked into now is tried again by the next.
fn sweep_all(dir: &SyncRoot, path: &Path) -> std::io::Result<Marks> {
    let (mut marks, left) = Marks::open(path)?;
    let left: Vec<_> = left
        .into_iter()
        .filter(|leftover| {
            let swept = marks::sweep(dir, leftover.as_ref());
            swept.inspect_err(|error| tracing::warn!(%error, "temporary files may be left")).is_err()
        })
        .collect();
    marks.wipe()?;
    for leftover in left {
        marks.note(leftover.as_ref().map_or(&[], |dir| dir.as_bytes()))?;
    }
    Ok(marks)
}

fn inplace_globs(globs: &[String]) -> Result<GlobSet, RootError> {
    let mut set = GlobSetBuilder::new();
    let broken = |glob: &String| {
        let glob = glob.clone();
        move |source| RootError::Glob { glob, source }
    };
    for glob in globs {
        if glob.len() > MAX_GLOB {
            return Err(RootError::Protocol("a glob is too long"));
        }
        // As for --exclude: a glob without a slash means a name anywhere.
        let anywhere = if glob.contains('/') { glob.clone() } else { format!("**/{glob}") };
        set.add(Glob::new(&anywhere).map_err(broken(glob))?);
    }
    set.build().map_err(broken(&globs.join(" ")))
}
