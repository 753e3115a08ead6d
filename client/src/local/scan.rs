//! Scans a sync root into a tree with digests, reading only what the index does not know.
//!
//! What cannot be read is said and stays unknown: it is never taken for deleted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use devsync_protocol::digest::Digest;
use devsync_protocol::path::{RelPath, display};
use devsync_protocol::tree::{Node, Tree};
use thiserror::Error;

use super::guard::RootLost;
use super::index::Index;
use super::platform::{self, Stamp};
use super::read::{self, ReadError};
use super::rules::{RuleOptions, Rules};
use super::walk::{Found, Seen, walk};

#[derive(Debug, Error)]
pub enum ScanError {
    #[error(transparent)]
    RootLost(#[from] RootLost),
    #[error("cannot read the directory {root}")]
    Root {
        root: String,
        #[source]
        source: io::Error,
    },
}

/// A path that is not synced, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Skipped {
    /// Relative to the root; not always a valid [`RelPath`].
    pub path: Vec<u8>,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Why {
    #[error("a {0} cannot be synced")]
    Special(&'static str),
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("its path is too long")]
    TooLong,
    #[error("its name has no form that the pod understands")]
    BadName,
    #[error("its target cannot be sent")]
    BadLink,
    #[error("larger than 1 TiB")]
    TooLarge,
    #[error("changes while it is read; its next change is synced")]
    Changing,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", display(&self.path), self.why)
    }
}

impl Skipped {
    pub(crate) fn new(path: &RelPath, why: Why) -> Self {
        Self { path: path.as_bytes().to_vec(), why }
    }

    pub(crate) fn failed(path: &RelPath, error: io::Error) -> Self {
        Self::failed_in(Some(path), error)
    }

    pub(crate) fn failed_in(path: Option<&RelPath>, error: io::Error) -> Self {
        let why = match platform::is_too_long(&error) {
            true => Why::TooLong,
            false => Why::Unreadable(error.to_string()),
        };
        Self { path: path.map_or_else(Vec::new, |p| p.as_bytes().to_vec()), why }
    }

    pub(crate) fn unnameable(dir: Option<&RelPath>, name: &OsStr) -> Self {
        Self { path: below(dir, name.as_encoded_bytes()), why: Why::BadName }
    }

    pub(crate) fn too_long(dir: Option<&RelPath>, name: &[u8]) -> Self {
        Self { path: below(dir, name), why: Why::TooLong }
    }

    pub(crate) fn of_read(path: &RelPath, error: ReadError) -> Option<Self> {
        match error {
            ReadError::Gone { .. } => None,
            ReadError::Changing { .. } => Some(Self::new(path, Why::Changing)),
            ReadError::NotAFile { .. } => Some(Self::new(path, Why::Special("special file"))),
            ReadError::Io { source, .. } => Some(Self::failed(path, source)),
        }
    }

    /// True where the laptop may well have something at this path or below it: the pod's is to be kept.
    pub fn is_unknown(&self) -> bool {
        matches!(self.why, Why::Unreadable(_) | Why::Changing | Why::TooLong)
    }

    /// True where `path` is this one or lies below it.
    pub fn covers(&self, path: &RelPath) -> bool {
        let rest = path.strip_prefix(&self.path[..]);
        self.path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

fn below(dir: Option<&RelPath>, name: &[u8]) -> Vec<u8> {
    dir.map_or_else(|| name.to_vec(), |d| [d.as_bytes(), b"/", name].concat())
}

/// What a root holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    pub tree: Tree,
    /// In order of their paths.
    pub skipped: Vec<Skipped>,
    /// Files whose content was read, since the index did not know it.
    pub read: usize,
}

impl Scan {
    /// True where `path` may exist on the laptop although the tree lacks it, so that it must not be deleted.
    pub fn is_unknown(&self, path: &RelPath) -> bool {
        self.skipped.iter().any(|s| s.is_unknown() && s.covers(path))
    }
}

/// Scans one root, and keeps its index.
#[derive(Debug)]
pub struct Scanner {
    pub(crate) root: PathBuf,
    pub(crate) rules: Arc<Rules>,
    pub(crate) index: Index,
    pub(crate) said: HashSet<Skipped>,
}

impl Scanner {
    /// `root` is made absolute and free of links; it must be a directory.
    pub fn open(root: &Path, options: RuleOptions) -> Result<Self, ScanError> {
        let root = real_root(root)?;
        let index = Index::open(&root);
        Ok(Self::with(root.clone(), Arc::new(Rules::new(&root, options)), index))
    }

    /// As [`Scanner::open`], with rules and index as they are. `root` must be absolute and free of links.
    pub fn with(root: PathBuf, rules: Arc<Rules>, index: Index) -> Self {
        Self { root, rules, index, said: HashSet::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The rules, to be shared with a [`crate::local::Watcher`] of the same root.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Scans the whole root, and saves the index. An empty root is an empty tree: see
    /// [`crate::local::guard`] for what that may mean. Start the watcher first, so that nothing is missed.
    pub fn scan(&mut self) -> Result<Scan, ScanError> {
        self.rules.invalidate();
        self.check_root()?;
        let scan = self.scan_below(None)?;
        self.said.extend(scan.skipped.iter().cloned());
        if !scan.skipped.iter().any(Skipped::is_unknown) {
            self.index.retain(&scan.tree);
        }
        self.save();
        Ok(scan)
    }

    /// Writes the index to the cache directory if it changed. Worth a call before the end.
    pub fn save(&mut self) {
        if let Err(error) = self.index.save() {
            tracing::debug!(%error, "the index of file digests was not saved");
        }
    }

    pub(crate) fn check_root(&self) -> Result<(), ScanError> {
        check_root(&self.root)
    }

    /// Scans what lies below `from`, without `from` itself.
    pub(crate) fn scan_below(&mut self, from: Option<&RelPath>) -> Result<Scan, ScanError> {
        let found = match walk(&self.root, &self.rules, from) {
            Ok(found) => found,
            Err(error) => match from {
                None => {
                    self.check_root()?;
                    return Err(ScanError::Root { root: shown(&self.root), source: error });
                }
                Some(_) if error.kind() == io::ErrorKind::NotFound => Found::default(),
                Some(dir) => Found { seen: Vec::new(), skipped: vec![Skipped::failed(dir, error)] },
            },
        };
        Ok(self.digest(found))
    }

    fn digest(&mut self, found: Found) -> Scan {
        let Found { seen, mut skipped } = found;
        let mut nodes = Vec::with_capacity(seen.len());
        let mut unread = Vec::new();
        for (path, seen) in seen {
            match seen {
                Seen::Other(node) => nodes.push((path, node)),
                Seen::File { stamp, mode } => match self.index.digest(&path, &stamp) {
                    Some(digest) => nodes.push((path, Node::File { mode, size: stamp.size, digest })),
                    None => unread.push(path),
                },
            }
        }
        let read = unread.len();
        for (path, at, result) in read_all(&self.root, unread) {
            match result {
                Ok((stamp, mode, digest)) => {
                    nodes.push((path.clone(), Node::File { mode, size: stamp.size, digest }));
                    self.index.insert(path, stamp, digest, at);
                }
                Err(error) => skipped.extend(Skipped::of_read(&path, error)),
            }
        }
        skipped.sort();
        nodes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Scan { tree: Tree(BTreeMap::from_iter(nodes)), skipped, read }
    }

    /// The node at `path`, whose lstat is `seen`; reads the file if need be.
    pub(crate) fn node(&mut self, path: &RelPath, seen: Seen) -> Result<Node, ReadError> {
        let (stamp, mode) = match seen {
            Seen::Other(node) => return Ok(node),
            Seen::File { stamp, mode } => (stamp, mode),
        };
        if let Some(digest) = self.index.digest(path, &stamp) {
            return Ok(Node::File { mode, size: stamp.size, digest });
        }
        let at = SystemTime::now();
        let (stamp, mode, digest) = read::digest_stable(&platform::absolute(&self.root, Some(path)))?;
        self.index.insert(path.clone(), stamp, digest, at);
        Ok(Node::File { mode, size: stamp.size, digest })
    }

    /// Those of `skipped` that were not said before.
    pub(crate) fn news(&mut self, skipped: BTreeSet<Skipped>) -> Vec<Skipped> {
        skipped.into_iter().filter(|s| self.said.insert(s.clone())).collect()
    }
}

type ReadResult = (RelPath, SystemTime, Result<(Stamp, u16, Digest), ReadError>);

/// Reads files with as many threads as pay.
fn read_all(root: &Path, paths: Vec<RelPath>) -> Vec<ReadResult> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = SystemTime::now();
            done.push((path.clone(), at, read::digest_stable(&platform::absolute(root, Some(path)))));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(paths.len() / 16 + 1);
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        all.extend(helpers.into_iter().filter_map(|h| h.join().ok()).flatten());
        all
    })
}

/// `root` absolute and without links in it.
pub fn real_root(root: &Path) -> Result<PathBuf, ScanError> {
    let error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => RootLost::Vanished { root: shown(root) }.into(),
        _ => ScanError::Root { root: shown(root), source },
    };
    let real = root.canonicalize().map_err(error)?;
    check_root(&real)?;
    Ok(real)
}

pub(crate) fn check_root(root: &Path) -> Result<(), ScanError> {
    match std::fs::symlink_metadata(root) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(RootLost::NotADirectory { root: shown(root) }.into()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(RootLost::Vanished { root: shown(root) }.into())
        }
        Err(source) => Err(ScanError::Root { root: shown(root), source }),
    }
}

pub(crate) fn shown(path: &Path) -> String {
    display(&platform::path_bytes(path).unwrap_or_default())
}
