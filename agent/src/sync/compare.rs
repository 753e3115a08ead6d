//! Comparing the laptop's tree with the pod's: first by digests of directories, then by the entries of those
//! that differ. Nothing is changed in the pod here; what is found equal is taken into the ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::io::Read;

use devsync_protocol::chunk::{Signature, Signer};
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{DELTA_FROM, MAX_ENTRIES, Need, NeedKind, Reply, RootId, node_in_bounds};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{DirDigest, Entry, Node, Tree, root_digest};

use super::ledger::Record;
use super::root::{Root, RootError, read_pieces, stamp};
use crate::target::metadata::{Kind, Metadata};

/// Needs in one part of the answer.
const PART: usize = 2000;
/// Largest file whose signature is made for a delta, in bytes.
const SIGN_UP_TO: u64 = 512 * 1024 * 1024;

/// What the laptop told so far, and what the pod's managed files are now.
#[derive(Default)]
pub(crate) struct Comparison {
    dirs: Vec<DirDigest>,
    entries: BTreeMap<RelPath, Node>,
    /// Managed paths that are not as the ledger says: what is there instead.
    drifted: BTreeMap<RelPath, Option<Node>>,
    differing: BTreeSet<Option<RelPath>>,
}

impl Root {
    /// Takes a part of the laptop's directory digests; answers after the last.
    pub(crate) fn compare(
        &mut self,
        tree: Digest,
        dirs: Vec<DirDigest>,
        last: bool,
    ) -> Result<Option<Reply>, RootError> {
        let comparison = self.comparison.get_or_insert_default();
        comparison.dirs.extend(dirs);
        if comparison.dirs.len() > MAX_ENTRIES {
            return Err(RootError::Protocol("the client named too many directories"));
        }
        if !last {
            return Ok(None);
        }
        let (managed, drifted) = self.managed_tree()?;
        let ours = managed.dir_digests();
        let comparison = self.comparison.get_or_insert_default();
        comparison.drifted = drifted;
        comparison.differing.clear();
        comparison.entries.clear();
        let mut differing = Vec::new();
        let mut gone = false;
        if root_digest(&ours) != tree || root_digest(&comparison.dirs) != tree {
            let known: BTreeMap<_, _> = ours.iter().map(|d| (&d.dir, d.digest)).collect();
            let named: BTreeSet<_> = comparison.dirs.iter().map(|d| &d.dir).collect();
            gone = ours.iter().any(|d| !named.contains(&d.dir));
            for (index, theirs) in comparison.dirs.iter().enumerate() {
                if known.get(&theirs.dir) != Some(&theirs.digest) {
                    differing.push(index as u32);
                    comparison.differing.insert(theirs.dir.clone());
                }
            }
        }
        Ok(Some(Reply::Compared { root: self.id, differing, gone, last: true }))
    }

    /// The managed files as they are now, in the laptop's terms, and those that are not as recorded.
    fn managed_tree(&mut self) -> Result<(Tree, BTreeMap<RelPath, Option<Node>>), RootError> {
        let mut tree = Tree::default();
        let mut drifted = BTreeMap::new();
        let records: Vec<_> = self.ledger.records().iter().map(|(p, r)| (p.clone(), r.clone())).collect();
        for (path, record) in records {
            match self.look(&path)? {
                Some(metadata) if stamp(&metadata) == record.stamp => {
                    tree.0.insert(path, record.node);
                }
                Some(metadata) => {
                    let node = self.read_node(&path, &metadata)?;
                    if same_content(node.as_ref(), &record.node) && record.stamp.mode == metadata.mode {
                        let stamp = stamp(&metadata);
                        tree.0.insert(path.clone(), record.node.clone());
                        self.ledger.put(path, Record { stamp, ..record });
                    } else {
                        tree.0.extend(node.clone().map(|node| (path.clone(), node)));
                        drifted.insert(path, node);
                    }
                }
                None => {
                    drifted.insert(path, None);
                }
            }
        }
        Ok((tree, drifted))
    }

    /// Takes a part of the differing directories' entries; answers after the last, in parts.
    pub(crate) fn manifest(&mut self, entries: Vec<Entry>, last: bool) -> Result<Vec<Reply>, RootError> {
        let comparison =
            self.comparison.as_mut().ok_or(RootError::Protocol("a manifest came before a comparison"))?;
        for Entry { path, node } in entries {
            if !node_in_bounds(&node) {
                return Err(RootError::Protocol("the client named a file that is out of bounds"));
            }
            comparison.entries.insert(path, node);
        }
        if comparison.entries.len() > MAX_ENTRIES {
            return Err(RootError::Protocol("the client named too many files"));
        }
        if !last {
            return Ok(Vec::new());
        }
        let comparison = self.comparison.take().unwrap_or_default();
        let mut found = Findings::default();
        for (path, node) in &comparison.entries {
            self.examine(path, node, &comparison, &mut found)?;
        }
        self.find_deletes(&comparison, &mut found);
        if self.options.delete {
            self.find_extras(&comparison, &mut found)?;
        }
        self.ledger.save().ok();
        Ok(found.into_replies(self.id))
    }

    /// Decides what one entry needs.
    fn examine(
        &mut self,
        path: &RelPath,
        node: &Node,
        comparison: &Comparison,
        found: &mut Findings,
    ) -> Result<(), RootError> {
        let record = self.ledger.get(path).cloned();
        let drifted = comparison.drifted.contains_key(path);
        if let (Some(record), false) = (&record, drifted)
            && record.node == *node
        {
            return Ok(());
        }
        let Some(metadata) = self.look(path)? else {
            found.need(path, NeedKind::Missing);
            return Ok(());
        };
        let actual = match (&record, drifted) {
            (Some(record), false) => Some(record.node.clone()),
            _ => self.read_node(path, &metadata)?,
        };
        let ours = record.as_ref().is_some_and(|r| r.ours);
        if same_content(actual.as_ref(), node) {
            if mode_wanted(record.as_ref(), &metadata, node) {
                found.need(path, NeedKind::Mode);
            } else {
                let record = Record { node: node.clone(), stamp: stamp(&metadata), ours };
                self.ledger.put(path.clone(), record);
            }
        } else if ours && drifted && !self.options.overwrite {
            found.conflicts.push(path.clone());
        } else if let (Some(Node::File { size, digest, .. }), Node::File { size: new_size, .. }) =
            (&actual, node)
        {
            let signature = if (*size).min(*new_size) >= DELTA_FROM { self.sign(path, *size)? } else { None };
            found.need(path, NeedKind::Differs { digest: *digest, signature });
        } else {
            found.need(path, NeedKind::Missing);
        }
        Ok(())
    }

    /// The chunks of the pod's version, for a delta against it.
    pub(crate) fn sign(&mut self, path: &RelPath, size: u64) -> Result<Option<Signature>, RootError> {
        if size > SIGN_UP_TO {
            return Ok(None);
        }
        let (parent, leaf) = self.parent(path)?;
        let (file, _) = parent.open_read(leaf)?;
        let failed = |source| RootError::Read { path: path.to_string(), source };
        let mut signer = Signer::new(size);
        // A file that grows meanwhile makes a signature that fits no version, and a delta that fails its digest.
        read_pieces(&mut file.take(size), |piece| signer.update(piece)).map_err(failed)?;
        Ok(Some(signer.finish()))
    }

    /// Managed files that the laptop no longer has.
    fn find_deletes(&mut self, comparison: &Comparison, found: &mut Findings) {
        let named: BTreeSet<_> = comparison.dirs.iter().map(|d| &d.dir).collect();
        let lost: Vec<_> = self
            .ledger
            .records()
            .iter()
            .filter(|(path, _)| {
                let dir = path.parent();
                let listed = comparison.differing.contains(&dir) || !named.contains(&dir);
                listed && !comparison.entries.contains_key(*path)
            })
            .map(|(path, record)| (path.clone(), record.ours))
            .collect();
        for (path, ours) in lost {
            match comparison.drifted.get(&path) {
                // Gone in the pod too.
                Some(None) => self.ledger.remove(&path),
                Some(Some(Node::Dir { .. })) | None if ours => found.deletes.push(path),
                Some(_) if ours && !self.options.overwrite => found.conflicts.push(path),
                _ if ours => found.deletes.push(path),
                // It was there before devsync; with --delete it shows up among the extras.
                _ => self.ledger.remove(&path),
            }
        }
    }

    /// Files in the pod that neither devsync nor the laptop knows.
    fn find_extras(&mut self, comparison: &Comparison, found: &mut Findings) -> Result<(), RootError> {
        let mut dirs = vec![None::<RelPath>];
        while let Some(dir) = dirs.pop() {
            let parent = self.dir.directory(dir.as_ref().map_or(&[], |d| d.as_bytes()))?;
            for entry in parent.read_dir(MAX_ENTRIES)? {
                let path = match &dir {
                    Some(dir) => dir.join(&entry.name),
                    None => RelPath::new(entry.name.clone()),
                };
                let Ok(path) = path else { continue };
                let kind = entry.kind.map_or_else(|| parent.metadata(&entry.name).map(|m| m.kind), Ok)?;
                if kind == Kind::Directory {
                    dirs.push(Some(path.clone()));
                }
                if self.ledger.get(&path).is_none() && !comparison.entries.contains_key(&path) {
                    found.extras.push(path);
                }
            }
            if found.extras.len() > MAX_ENTRIES {
                return Err(RootError::Protocol("the pod holds too many files for --delete"));
            }
        }
        Ok(())
    }
}

/// True where `node`'s content (or link target, or being a directory) is what lies in the pod.
fn same_content(actual: Option<&Node>, node: &Node) -> bool {
    match (actual, node) {
        (Some(Node::File { digest: a, size: s, .. }), Node::File { digest: b, size: t, .. }) => {
            a == b && s == t
        }
        (Some(Node::Dir { .. }), Node::Dir { .. }) => true,
        (Some(Node::Symlink { target: a }), Node::Symlink { target: b }) => a == b,
        _ => false,
    }
}

/// True where the pod's permission bits have to change: the laptop's changed since they were last sent, or
/// the pod's file never came from devsync and is executable on one side only.
fn mode_wanted(record: Option<&Record>, metadata: &Metadata, node: &Node) -> bool {
    let (Node::File { mode, .. } | Node::Dir { mode }) = node else { return false };
    match record.map(|r| &r.node) {
        Some(Node::File { mode: sent, .. } | Node::Dir { mode: sent }) => sent != mode,
        _ => metadata.is_file() && (metadata.mode & 0o100 != 0) != (mode & 0o100 != 0),
    }
}

/// The answer to a manifest.
#[derive(Default)]
struct Findings {
    needs: VecDeque<Need>,
    deletes: Vec<RelPath>,
    extras: Vec<RelPath>,
    conflicts: Vec<RelPath>,
}

impl Findings {
    fn need(&mut self, path: &RelPath, kind: NeedKind) {
        self.needs.push_back(Need { path: path.clone(), kind });
    }

    fn into_replies(mut self, root: RootId) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let take = |list: &mut Vec<RelPath>| list.drain(..list.len().min(PART)).collect::<Vec<_>>();
            let (deletes, extras, conflicts) =
                (take(&mut self.deletes), take(&mut self.extras), take(&mut self.conflicts));
            let mut needs = Vec::new();
            let mut weight = 0;
            // A signature can fill a frame alone.
            while weight < PART
                && let Some(need) = self.needs.pop_front()
            {
                weight += match &need.kind {
                    NeedKind::Differs { signature: Some(s), .. } => s.chunks.len(),
                    _ => 1,
                };
                needs.push(need);
            }
            let last = self.needs.is_empty()
                && self.deletes.is_empty()
                && self.extras.is_empty()
                && self.conflicts.is_empty();
            replies.push(Reply::Needs { root, needs, deletes, extras, conflicts, last });
            if last {
                return replies;
            }
        }
    }
}
