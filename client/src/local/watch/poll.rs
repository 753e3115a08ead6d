//! Polls the directories that could not be watched: stamps of their entries, compared once a second.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use devsync_protocol::path::RelPath;

use crate::local::platform::{self, Stamp};

pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

type Listing = HashMap<RelPath, (Stamp, bool)>;

/// What a poll found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polled {
    Changed,
    NewDir,
    Gone,
}

#[derive(Debug)]
pub(crate) struct Poller {
    root: PathBuf,
    dirs: BTreeMap<Option<RelPath>, Listing>,
}

impl Poller {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), dirs: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    pub(crate) fn has(&self, dir: &RelPath) -> bool {
        self.dirs.contains_key(&Some(dir.clone()))
    }

    pub(crate) fn has_root(&self) -> bool {
        self.dirs.contains_key(&None)
    }

    pub(crate) fn clear(&mut self) {
        self.dirs.clear();
    }

    /// Polls `dir` from now on; what is there now is taken as known.
    pub(crate) fn add(&mut self, dir: Option<RelPath>) {
        let listing = list(&self.root, dir.as_ref());
        self.dirs.insert(dir, listing);
    }

    pub(crate) fn forget(&mut self, dir: &RelPath) {
        self.dirs.retain(|d, _| !d.as_ref().is_some_and(|d| d.is_within(dir)));
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(Option<&RelPath>) -> bool) {
        self.dirs.retain(|dir, _| keep(dir.as_ref()));
    }

    /// What changed since the last call.
    pub(crate) fn poll(&mut self) -> Vec<(RelPath, Polled)> {
        let mut found = Vec::new();
        for (dir, before) in &mut self.dirs {
            let now = list(&self.root, dir.as_ref());
            for (path, (stamp, is_dir)) in &now {
                match before.get(path) {
                    Some(old) if *old == (*stamp, *is_dir) => {}
                    Some((_, true)) if *is_dir => found.push((path.clone(), Polled::Changed)),
                    _ if *is_dir => found.push((path.clone(), Polled::NewDir)),
                    _ => found.push((path.clone(), Polled::Changed)),
                }
            }
            let gone = before.keys().filter(|path| !now.contains_key(*path));
            found.extend(gone.map(|path| (path.clone(), Polled::Gone)));
            *before = now;
        }
        found
    }
}

fn list(root: &Path, dir: Option<&RelPath>) -> Listing {
    let mut listing = Listing::new();
    let Ok(entries) = std::fs::read_dir(platform::absolute(root, dir)) else { return listing };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = platform::name_bytes(&name) else { continue };
        let path = dir.map_or_else(|| RelPath::new(name), |d| d.join(name));
        if let (Ok(path), Ok(meta)) = (path, entry.metadata()) {
            listing.insert(path, (platform::stamp(&meta), meta.is_dir()));
        }
    }
    listing
}
