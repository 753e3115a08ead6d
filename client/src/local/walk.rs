//! Walks a tree by the rules with a few threads: stamps and links, no contents.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use devsync_protocol::message::MAX_FILE;
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{MAX_LINK, Node};

use super::platform::{self, Stamp, Type};
use super::rules::{DirRules, Rules};
use super::scan::{Skipped, Why};

/// What lies at a path, before a file's content is known.
#[derive(Debug)]
pub(crate) enum Seen {
    File { stamp: Stamp, mode: u16 },
    Other(Node),
}

/// What a walk found, in no order.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) seen: Vec<(RelPath, Seen)>,
    pub(crate) skipped: Vec<Skipped>,
}

/// One more thread than this machine can use well would only wait for the file system's locks.
const MAX_THREADS: usize = 4;

struct Queue {
    dirs: Vec<Option<RelPath>>,
    /// Directories that are queued or being listed.
    open: usize,
}

/// Walks `root`, or what lies below `from`. Only a failure to list the start is an error.
pub(crate) fn walk(root: &Path, rules: &Rules, from: Option<&RelPath>) -> io::Result<Found> {
    let mut found = Found::default();
    let mut below = Vec::new();
    list(root, rules, from, &mut found, &mut below)?;
    if below.is_empty() {
        return Ok(found);
    }
    let queue = Mutex::new(Queue { open: below.len(), dirs: below.into_iter().map(Some).collect() });
    let more = Condvar::new();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    std::thread::scope(|scope| {
        let work = || work(root, rules, &queue, &more);
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = vec![work()];
        parts.extend(helpers.into_iter().filter_map(|h| h.join().ok()));
        for mut part in parts {
            found.seen.append(&mut part.seen);
            found.skipped.append(&mut part.skipped);
        }
    });
    Ok(found)
}

fn work(root: &Path, rules: &Rules, queue: &Mutex<Queue>, more: &Condvar) -> Found {
    let mut found = Found::default();
    let mut below = Vec::new();
    loop {
        let mut locked = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = loop {
            match locked.dirs.pop() {
                Some(dir) => break dir,
                None if locked.open == 0 => return found,
                None => locked = more.wait(locked).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(locked);
        if let Err(error) = list(root, rules, dir.as_ref(), &mut found, &mut below)
            && let Some(dir) = dir
            && error.kind() != io::ErrorKind::NotFound
        {
            found.skipped.push(Skipped::failed(&dir, error));
        }
        let mut locked = queue.lock().unwrap_or_else(PoisonError::into_inner);
        locked.open = locked.open - 1 + below.len();
        locked.dirs.extend(below.drain(..).map(Some));
        drop(locked);
        more.notify_all();
    }
}

/// Lists one directory into `found` and its subdirectories into `below`.
fn list(
    root: &Path,
    rules: &Rules,
    dir: Option<&RelPath>,
    found: &mut Found,
    below: &mut Vec<RelPath>,
) -> io::Result<()> {
    let here = rules.dir(dir);
    let abs = platform::absolute(root, dir);
    for entry in std::fs::read_dir(&abs)? {
        match entry {
            Ok(entry) => visit(rules, &here, dir, &entry, found, below),
            // The rest of the directory is unknown, not gone.
            Err(error) => found.skipped.push(Skipped::failed_in(dir, error)),
        }
    }
    Ok(())
}

fn visit(
    rules: &Rules,
    here: &DirRules,
    dir: Option<&RelPath>,
    entry: &DirEntry,
    found: &mut Found,
    below: &mut Vec<RelPath>,
) {
    let name = entry.file_name();
    let Some(bytes) = platform::name_bytes(&name) else {
        found.skipped.push(Skipped::unnameable(dir, &name));
        return;
    };
    let path = match dir.map_or_else(|| RelPath::new(bytes), |d| d.join(bytes)) {
        Ok(path) => path,
        Err(_) => {
            found.skipped.push(Skipped::too_long(dir, bytes));
            return;
        }
    };
    let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
    if rules.entry(here, &path, is_dir).is_hidden() {
        return;
    }
    match entry.metadata().and_then(|meta| look(|| entry.path(), &meta)) {
        Ok(Ok(seen)) => {
            if matches!(seen, Seen::Other(Node::Dir { .. })) {
                below.push(path.clone());
            }
            found.seen.push((path, seen));
        }
        Ok(Err(why)) => found.skipped.push(Skipped::new(&path, why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => found.skipped.push(Skipped::failed(&path, error)),
    }
}

/// What lstat's `meta` of the file at `abs` mean for a sync.
pub(crate) fn look(abs: impl FnOnce() -> PathBuf, meta: &std::fs::Metadata) -> io::Result<Result<Seen, Why>> {
    let mode = platform::mode(meta);
    Ok(match platform::type_of(meta.file_type()) {
        Type::File if meta.len() > MAX_FILE => Err(Why::TooLarge),
        Type::File => Ok(Seen::File { stamp: platform::stamp(meta), mode }),
        Type::Dir => Ok(Seen::Other(Node::Dir { mode })),
        Type::Symlink => match platform::link_target(&abs())? {
            Some(target) if !target.is_empty() && target.len() <= MAX_LINK => {
                Ok(Seen::Other(Node::Symlink { target }))
            }
            _ => Err(Why::BadLink),
        },
        Type::Special(kind) => Err(Why::Special(kind)),
    })
}
