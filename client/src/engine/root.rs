//! One sync root: the files here, what the pod has of them, and the names by which both call them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devsync_protocol::chunk::Signature;
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Need, NeedKind, RootId, RootOptions};
use devsync_protocol::path::{PodPath, RelPath, display};
use devsync_protocol::tree::{DirDigest, Entry, Node, Tree};
use tokio::sync::mpsc;

use crate::compare::Needs;
use crate::error::CommandError;
use crate::local::guard::{RecentDeletes, RootLost};
use crate::local::{
    Change, Quiet, RuleOptions, ScanError, Scanner, Skipped, Timing, Update, Watcher, platform,
};
use crate::mapping::{Mapping, Source};

/// A sync root of the session.
pub(super) struct Root {
    pub(super) id: RootId,
    pub(super) mapping: Mapping,
    /// The directory here.
    pub(super) dir: PathBuf,
    /// Where it lies in the pod, once it was opened.
    pub(super) place: Option<PodPath>,
    /// A single file: its name here, and its name in the pod.
    file: Option<(RelPath, RelPath)>,
    scanner: Scanner,
    watcher: Option<(Watcher, mpsc::Receiver<Change>)>,
    /// What is here.
    pub(super) known: Tree,
    /// What the pod has, as far as it was acknowledged; by the names here.
    pub(super) held: BTreeMap<RelPath, Node>,
    /// Paths that changed in the pod and were kept: they are not sent until they change here again.
    pub(super) conflicts: BTreeSet<RelPath>,
    /// Versions in the pod that deltas can be made against.
    pub(super) signatures: BTreeMap<RelPath, (Digest, Option<Signature>)>,
    /// What was not applied: it goes with the next batch. True where the pod has it.
    pub(super) left: BTreeMap<RelPath, bool>,
    /// Deletes of late.
    pub(super) deletes: RecentDeletes,
    /// What was seen here and is not synced.
    pub(super) skipped: Vec<Skipped>,
}

/// What is to be sent of one root.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) changed: BTreeMap<RelPath, Node>,
    pub(super) deleted: BTreeSet<RelPath>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.deleted.is_empty()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.changed.keys().chain(&self.deleted)
    }
}

impl Root {
    /// Opens the files here; nothing is read yet.
    pub(super) fn open(
        id: RootId,
        mapping: Mapping,
        excludes: &[String],
        project: &Path,
    ) -> Result<Self, CommandError> {
        let (dir, file, options) = match &mapping.source {
            Source::Tree(dir) => {
                let (excludes, includes) = (excludes.to_vec(), mapping.keeps.clone());
                let options = RuleOptions { excludes, includes, ..RuleOptions::default() };
                (dir.clone(), None, options)
            }
            Source::File { path, name } => {
                let (dir, here) = locate(path, project)?;
                let includes = vec![here.clone()];
                let options = RuleOptions { includes, only_includes: true, ..RuleOptions::default() };
                (dir, Some((here, name.clone())), options)
            }
        };
        let scanner = Scanner::open(&dir, options).map_err(scan_error)?;
        Ok(Self {
            id,
            mapping,
            dir: scanner.root().to_owned(),
            place: None,
            file,
            scanner,
            watcher: None,
            known: Tree::default(),
            held: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            signatures: BTreeMap::new(),
            left: BTreeMap::new(),
            deletes: RecentDeletes::default(),
            skipped: Vec::new(),
        })
    }

    pub(super) fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// Options for the agent; deletes of what others put beside a single file are never meant.
    pub(super) fn options(&self, session: &RootOptions) -> RootOptions {
        RootOptions { delete: session.delete && self.file.is_none(), ..session.clone() }
    }

    /// Begins to watch; what happens from now on is not missed.
    pub(super) fn watch(&mut self) -> Result<(), CommandError> {
        let rules = Arc::clone(self.scanner.rules());
        let watcher = Watcher::start(&self.dir, rules, Timing::default()).map_err(CommandError::of)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Reads what is here.
    pub(super) fn scan(&mut self) -> Result<(), CommandError> {
        let scan = self.scanner.scan().map_err(scan_error)?;
        if let (Some((here, _)), Source::File { path, .. }) = (&self.file, &self.mapping.source)
            && !matches!(scan.tree.0.get(here), Some(Node::File { .. }))
        {
            let why = scan.skipped.first().map_or("there is no such file".to_owned(), |s| s.why.to_string());
            return Err(CommandError::new(format!("{} cannot be synced", path.display())).cause(why));
        }
        self.known = scan.tree;
        self.skipped = scan.skipped;
        Ok(())
    }

    /// The pod may be another one: what it has is asked anew.
    pub(super) fn forget_pod(&mut self) {
        self.held.clear();
        self.signatures.clear();
    }

    pub(super) fn poll_change(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Change>> {
        match &mut self.watcher {
            Some((_, changes)) => changes.poll_recv(cx),
            None => std::task::Poll::Pending,
        }
    }

    pub(super) fn quiet(&self) -> Option<Quiet> {
        self.watcher.as_ref().map(|(watcher, _)| watcher.quiet())
    }

    /// What differs now from what was known, at the paths that `change` names.
    pub(super) fn refresh(&mut self, change: &Change) -> Result<Update, ScanError> {
        match self.scanner.refresh(change, &self.known) {
            // A single file that is gone is about to be built anew: the pod keeps the one it has.
            Err(ScanError::RootLost(RootLost::Emptied { .. })) if self.is_file() => {
                self.known = Tree::default();
                Ok(Update::default())
            }
            other => other,
        }
    }

    /// What is to be sent of an update.
    pub(super) fn work(&self, update: &Update) -> Work {
        let wanted = |path: &RelPath| self.file.as_ref().is_none_or(|(here, _)| here == path);
        let changed = update.changed.iter().filter(|(p, _)| wanted(p));
        let deleted = update.deleted.iter().filter(|p| !self.is_file() && self.held.contains_key(*p));
        Work {
            changed: changed.map(|(p, n)| (p.clone(), n.clone())).collect(),
            deleted: deleted.cloned().collect(),
        }
    }

    /// Keeps a path that was not applied for the next batch; `deleted`: it was to be deleted.
    pub(super) fn leave(&mut self, path: &RelPath, deleted: bool) {
        let there = deleted || self.held.contains_key(path) || self.signatures.contains_key(path);
        self.left.insert(path.clone(), there);
    }

    /// Adds to `work` what an earlier batch left out. A path is only deleted where it is really gone from here.
    pub(super) fn take_left(&mut self, work: &mut Work) {
        for (path, there) in std::mem::take(&mut self.left) {
            if self.is_hidden(&path) || work.changed.contains_key(&path) || work.deleted.contains(&path) {
                continue;
            }
            match self.known.0.get(&path) {
                Some(node) if self.held.get(&path) == Some(node) || self.conflicts.contains(&path) => {}
                Some(node) => {
                    work.changed.insert(path, node.clone());
                }
                None if self.is_file() => {}
                None if is_absent(&self.absolute(&path)) => {
                    if there {
                        work.deleted.insert(path);
                    }
                }
                None => {
                    self.left.insert(path, there);
                }
            }
        }
    }

    /// Whether a path here is left out by a rule.
    pub(super) fn is_hidden(&self, path: &RelPath) -> bool {
        self.scanner.rules().verdict(path, false).is_hidden()
    }

    pub(super) fn save_index(&mut self) {
        self.scanner.save();
    }

    /// The path here of an entry.
    pub(super) fn absolute(&self, path: &RelPath) -> PathBuf {
        platform::absolute(&self.dir, Some(path))
    }

    pub(super) fn to_pod(&self, path: &RelPath) -> RelPath {
        match &self.file {
            Some((here, there)) if here == path => there.clone(),
            _ => path.clone(),
        }
    }

    pub(super) fn to_laptop(&self, path: &RelPath) -> RelPath {
        match &self.file {
            Some((here, there)) if there == path => here.clone(),
            _ => path.clone(),
        }
    }

    /// The path in the pod as a person reads it.
    pub(super) fn shown(&self, path: &RelPath) -> String {
        let path = self.to_pod(path);
        let full = self.place.as_ref().and_then(|place| place.join(&path).ok());
        full.map_or_else(|| path.to_string(), |full| full.to_string())
    }

    /// What is here, by the names in the pod.
    pub(super) fn tree_for_pod(&self) -> Tree {
        self.as_in_pod(self.known.clone())
    }

    /// A tree by the names here as one by the names in the pod.
    pub(super) fn as_in_pod(&self, tree: Tree) -> Tree {
        match &self.file {
            None => tree,
            Some((here, there)) => {
                let node = tree.0.get(here).map(|node| (there.clone(), node.clone()));
                Tree(node.into_iter().collect())
            }
        }
    }

    /// The entries of the directories that differ.
    pub(super) fn manifest(&self, tree: &Tree, dirs: &[DirDigest], differing: &[u32]) -> Vec<Entry> {
        let differs: BTreeSet<_> =
            differing.iter().filter_map(|i| dirs.get(*i as usize)).map(|d| d.dir.clone()).collect();
        let entries = tree.0.iter().filter(|(path, _)| differs.contains(&path.parent()));
        entries.map(|(path, node)| Entry { path: path.clone(), node: node.clone() }).collect()
    }

    /// The pod has all that is here.
    pub(super) fn hold_all(&mut self) {
        self.held = match &self.file {
            None => self.known.0.clone(),
            Some((here, _)) => {
                self.known.0.get(here).map(|n| (here.clone(), n.clone())).into_iter().collect()
            }
        };
    }

    /// Takes in what the agent said it needs: what is held, and what is to be sent.
    pub(super) fn take_needs(&mut self, needs: Needs, overwrite: bool) -> Work {
        self.hold_all();
        let mut work = Work::default();
        if !overwrite {
            self.conflicts = needs.conflicts.iter().map(|p| self.to_laptop(p)).collect();
        }
        for path in &self.conflicts {
            self.held.remove(path);
        }
        for Need { path, kind } in needs.needs {
            let path = self.to_laptop(&path);
            let Some(node) = self.known.0.get(&path).cloned() else { continue };
            self.held.remove(&path);
            match kind {
                NeedKind::Missing => {}
                NeedKind::Mode => {
                    if let Some(was) = with_other_mode(&node) {
                        self.held.insert(path.clone(), was);
                    }
                }
                NeedKind::Differs { digest, signature } => {
                    self.signatures.insert(path.clone(), (digest, signature));
                }
            }
            if !self.conflicts.contains(&path) {
                work.changed.insert(path, node);
            }
        }
        work
    }

    /// Which of the pod's entries are to be deleted: not what may be here after all, and not what a rule hides.
    pub(super) fn may_delete(&self, paths: Vec<RelPath>) -> BTreeSet<RelPath> {
        if self.file.is_some() {
            return BTreeSet::new();
        }
        let unknown = |path: &RelPath| {
            self.skipped.iter().any(|s| s.is_unknown() && s.covers(path)) && !is_absent(&self.absolute(path))
        };
        let meant =
            |path: &RelPath| !self.known.0.contains_key(path) && !unknown(path) && !self.is_hidden(path);
        paths.into_iter().filter(meant).collect()
    }
}

/// What is here of a mapping, by the names in the pod.
pub fn local_tree(
    id: RootId,
    mapping: Mapping,
    excludes: &[String],
    project: &Path,
) -> Result<Tree, CommandError> {
    let mut root = Root::open(id, mapping, excludes, project)?;
    root.scan()?;
    Ok(root.tree_for_pod())
}

/// The same entry with permission bits that it does not have, so that it differs in nothing else.
fn with_other_mode(node: &Node) -> Option<Node> {
    match node {
        Node::File { mode, size, digest } => {
            Some(Node::File { mode: mode ^ 0o777, size: *size, digest: *digest })
        }
        Node::Dir { mode } => Some(Node::Dir { mode: mode ^ 0o777 }),
        Node::Symlink { .. } => None,
    }
}

/// A directory above a file that was named, and its path from there; links are followed. The project's directory
/// where the file is in it: a build may remove and make anew what lies nearer.
fn locate(path: &Path, project: &Path) -> Result<(PathBuf, RelPath), CommandError> {
    let failed = |cause: String| CommandError::new(format!("{} cannot be read", path.display())).cause(cause);
    let unread = |e: std::io::Error| failed(e.to_string()).hint("build it first, or with --build CMD");
    let real = std::fs::canonicalize(path).map_err(unread)?;
    let project = std::fs::canonicalize(project).ok().filter(|dir| real.starts_with(dir) && real != *dir);
    let parent = || real.parent().map(Path::to_owned);
    let dir = project.or_else(parent).ok_or_else(|| failed("it is no file".to_owned()))?;
    let dir = dir.as_path();
    match platform::relative(dir, &real) {
        Ok(Some(name)) => Ok((dir.to_owned(), name)),
        _ => Err(failed("its name has no form that the pod understands".to_owned())),
    }
}

pub(super) fn scan_error(error: ScanError) -> CommandError {
    let hint = match &error {
        ScanError::RootLost(_) => Some("bring it back, then `devsync attach` again"),
        ScanError::Root { .. } => None,
    };
    CommandError::of(error).hint_opt(hint.map(str::to_owned))
}

fn is_absent(path: &Path) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    std::fs::symlink_metadata(path).is_err_and(|e| matches!(e.kind(), NotFound | NotADirectory))
}

/// A laptop's path for a message.
pub(super) fn show(path: &Path) -> String {
    display(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_goes_with_the_next_batch() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("unreadable"), "x").expect("written");
        let mapping = Mapping::new(Source::Tree(dir.path().into()), devsync_protocol::message::Place::Cwd);
        let mut root = Root::open(0, mapping, &[], dir.path()).expect("opened");
        let path = |name: &str| RelPath::new(name).expect("valid");
        let node = Node::Dir { mode: 0o755 };
        root.known.0.extend([(path("held"), node.clone()), (path("new"), node.clone())]);
        root.held.insert(path("held"), node);
        root.leave(&path("gone"), true);
        ["held", "new", "never sent", "unreadable"].iter().for_each(|name| root.leave(&path(name), false));
        let mut work = Work::default();
        root.take_left(&mut work);
        assert_eq!(work.changed.keys().collect::<Vec<_>>(), [&path("new")]);
        assert_eq!(work.deleted, [path("gone")].into());
        assert_eq!(root.left, [(path("unreadable"), false)].into(), "it is here, so it is not deleted there");
    }
}
