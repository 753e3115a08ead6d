//! Turns a change that the watcher reported into what differs from the tree that is known.
//!
//! Events are hints: only what the file system says now counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;

use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Node, Tree};

use super::guard::RootLost;
use super::platform;
use super::rules::Verdict;
use super::scan::{Scan, ScanError, Scanner, Skipped, Why, shown};
use super::walk::look;
use super::watch::{Change, Rescan};

/// How the files differ from a known tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// New or changed paths.
    pub changed: BTreeMap<RelPath, Node>,
    /// Paths that are gone from the laptop.
    pub deleted: BTreeSet<RelPath>,
    /// Paths that are there but do not count any more, since a rule changed: the pod's are left alone.
    pub hidden: BTreeSet<RelPath>,
    /// What is not synced and was not said before.
    pub skipped: Vec<Skipped>,
    /// Files that changed while they were read: another event is under way for each.
    pub changing: BTreeSet<RelPath>,
}

impl Update {
    /// True where nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.deleted.is_empty() && self.hidden.is_empty()
    }

    /// Makes `tree`, which this update was made against, what the laptop has.
    pub fn apply_to(&self, tree: &mut Tree) {
        for path in self.deleted.iter().chain(&self.hidden) {
            tree.0.remove(path);
        }
        tree.0.extend(self.changed.iter().map(|(path, node)| (path.clone(), node.clone())));
    }
}

impl Scanner {
    /// What differs from `known` at the paths that `change` names.
    pub fn refresh(&mut self, change: &Change, known: &Tree) -> Result<Update, ScanError> {
        self.check_root()?;
        let mut work = Refresh {
            scanner: self,
            known,
            ways: HashMap::new(),
            update: Update::default(),
            skipped: BTreeSet::new(),
        };
        match &change.rescan {
            Some(Rescan::Everything) => work.rescan(None)?,
            Some(Rescan::Dirs(dirs)) => {
                for dir in dirs {
                    work.path(dir, true)?;
                }
            }
            None => {}
        }
        if !matches!(change.rescan, Some(Rescan::Everything)) {
            for path in &change.paths {
                work.path(path, false)?;
            }
        }
        let Refresh { mut update, skipped, .. } = work;
        update.deleted.retain(|path| !update.changed.contains_key(path));
        update.skipped = self.news(skipped);
        self.check_emptied(&update, known)?;
        Ok(update)
    }

    fn check_emptied(&self, update: &Update, known: &Tree) -> Result<(), ScanError> {
        let had = known.0.len();
        let all_gone = had > 0 && update.deleted.len() == had && update.changed.is_empty();
        // A root that vanished while it was looked through must not pass for deletes.
        self.check_root()?;
        if all_gone {
            return Err(RootLost::Emptied { root: shown(&self.root), had }.into());
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Real directories all the way.
    Open,
    /// Something is missing, or is no directory.
    Gone,
    /// Something cannot be looked at.
    Unknown,
}

struct Refresh<'a> {
    scanner: &'a mut Scanner,
    known: &'a Tree,
    /// Directories on the way to what was looked at.
    ways: HashMap<RelPath, Way>,
    update: Update,
    skipped: BTreeSet<Skipped>,
}

impl Refresh<'_> {
    /// Looks at one path; `deep`: and at all below it.
    fn path(&mut self, path: &RelPath, deep: bool) -> Result<(), ScanError> {
        match self.way_to(path) {
            Way::Open => {}
            Way::Gone => {
                self.gone(path);
                return Ok(());
            }
            Way::Unknown => return Ok(()),
        }
        let abs = platform::absolute(&self.scanner.root, Some(path));
        let meta = match std::fs::symlink_metadata(&abs) {
            Ok(meta) => meta,
            Err(error) if is_gone(&error) => {
                self.gone(path);
                return Ok(());
            }
            Err(error) => {
                self.skipped.insert(Skipped::failed(path, error));
                return Ok(());
            }
        };
        if self.scanner.rules.verdict(path, meta.is_dir()) == Verdict::Hide {
            self.hide(path);
            return Ok(());
        }
        match look(|| abs, &meta) {
            Ok(Ok(seen)) => match self.scanner.node(path, seen) {
                Ok(node) => self.found(path, node, deep)?,
                Err(error) => self.unread(path, Skipped::of_read(path, error)),
            },
            // What was there is no file any more, so the pod's is stale.
            Ok(Err(why)) => {
                self.gone(path);
                self.skipped.insert(Skipped::new(path, why));
            }
            Err(error) => self.unread(path, Some(Skipped::failed(path, error))),
        }
        Ok(())
    }

    fn unread(&mut self, path: &RelPath, skipped: Option<Skipped>) {
        match skipped {
            None => self.gone(path),
            Some(skipped) if skipped.why == Why::Changing => {
                self.update.changing.insert(path.clone());
            }
            Some(skipped) => {
                self.skipped.insert(skipped);
            }
        }
    }

    fn found(&mut self, path: &RelPath, node: Node, deep: bool) -> Result<(), ScanError> {
        let (is_dir, was) = (node.is_dir(), self.known.0.get(path));
        let was_dir = was.is_some_and(Node::is_dir);
        if was != Some(&node) {
            self.update.changed.insert(path.clone(), node);
        } else {
            self.update.changed.remove(path);
        }
        if is_dir && (deep || !was_dir) {
            return self.rescan(Some(path));
        }
        if !is_dir {
            self.drop_below(path);
        }
        Ok(())
    }

    /// Compares all below `from` with what is known of it.
    fn rescan(&mut self, from: Option<&RelPath>) -> Result<(), ScanError> {
        let scan = self.scanner.scan_below(from)?;
        let gone: Vec<_> = self
            .known_below(from)
            .filter(|path| !scan.tree.0.contains_key(path) && !scan.is_unknown(path))
            .cloned()
            .collect();
        let hidden = self.are_hidden(&gone);
        self.update.hidden.extend(hidden.iter().cloned());
        self.update.deleted.extend(gone.into_iter().filter(|path| !hidden.contains(path)));
        let Scan { tree, skipped, .. } = scan;
        for (path, node) in tree.0 {
            if self.known.0.get(&path) != Some(&node) {
                self.update.changed.insert(path, node);
            }
        }
        for skipped in skipped {
            match (&skipped.why, RelPath::new(&skipped.path[..])) {
                (Why::Changing, Ok(path)) => {
                    self.update.changing.insert(path);
                }
                _ => {
                    self.skipped.insert(skipped);
                }
            }
        }
        Ok(())
    }

    /// Those of `paths` that still exist, and so were hidden by a rule.
    fn are_hidden(&self, paths: &[RelPath]) -> BTreeSet<RelPath> {
        let exists = |path: &RelPath| {
            let abs = platform::absolute(&self.scanner.root, Some(path));
            std::fs::symlink_metadata(abs).ok()
        };
        let hidden = |path: &&RelPath| {
            exists(path).is_some_and(|m| self.scanner.rules.verdict(path, m.is_dir()).is_hidden())
        };
        paths.iter().filter(hidden).cloned().collect()
    }

    fn gone(&mut self, path: &RelPath) {
        if self.known.0.contains_key(path) {
            self.update.deleted.insert(path.clone());
        }
        self.update.changed.remove(path);
        self.drop_below(path);
    }

    fn hide(&mut self, path: &RelPath) {
        let below: Vec<_> = self.known_below(Some(path)).cloned().collect();
        self.update.hidden.extend(below);
        if self.known.0.contains_key(path) {
            self.update.hidden.insert(path.clone());
        }
    }

    fn drop_below(&mut self, path: &RelPath) {
        let below: Vec<_> = self.known_below(Some(path)).cloned().collect();
        self.update.deleted.extend(below);
        self.update.changed.retain(|p, _| p == path || !p.is_within(path));
    }

    fn known_below(&self, dir: Option<&RelPath>) -> impl Iterator<Item = &RelPath> + use<'_> {
        let prefix = dir.map_or_else(Vec::new, |d| [d.as_bytes(), b"/"].concat());
        let from = dir.cloned().map_or(Bound::Unbounded, Bound::Excluded);
        let sorted_before = prefix.clone();
        self.known
            .0
            .range((from, Bound::Unbounded))
            .map(|(path, _)| path)
            // `a-b` sorts between `a` and `a/c`.
            .skip_while(move |path| path.as_bytes() < &sorted_before[..])
            .take_while(move |path| path.starts_with(&prefix))
    }

    /// Whether each name on the way to `path` is a directory; those that are not known yet are added.
    fn way_to(&mut self, path: &RelPath) -> Way {
        let Some(parent) = path.parent() else { return Way::Open };
        if let Some(&known) = self.ways.get(&parent) {
            return known;
        }
        let way = match self.way_to(&parent) {
            Way::Open => self.step(&parent),
            other => other,
        };
        self.ways.insert(parent, way);
        way
    }

    fn step(&mut self, dir: &RelPath) -> Way {
        let meta = match std::fs::symlink_metadata(platform::absolute(&self.scanner.root, Some(dir))) {
            Ok(meta) => meta,
            Err(error) if is_gone(&error) => return Way::Gone,
            Err(error) => {
                self.skipped.insert(Skipped::failed(dir, error));
                return Way::Unknown;
            }
        };
        if !meta.is_dir() {
            return Way::Gone;
        }
        let known = self.known.0.get(dir).is_some_and(Node::is_dir);
        if !known && !self.scanner.rules.verdict(dir, true).is_hidden() {
            self.update.changed.insert(dir.clone(), Node::Dir { mode: platform::mode(&meta) });
        }
        Way::Open
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
