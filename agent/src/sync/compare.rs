//! Comparing the laptop's tree with the pod's: first by digests of directories, then by the entries of those
//! that differ. Nothing is changed in the pod here; what is found equal is taken into the ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use std::io::Read;

use devsync_protocol::chunk::{Signature, Signer};
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{
    DELTA_FROM, MAX_ENTRIES, MAX_PART, Need, NeedKind, Reply, RootId, node_in_bounds,
};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{DirDigest, Entry, Node, Tree, root_digest};

use super::ledger::{Record, Stamp};
use super::root::{Root, RootError, read_pieces, stamp};
use crate::target::error::TargetError;
use crate::target::metadata::{Kind, Metadata};

/// A part of the answer is sent once it has this many bytes; one signature more still fits a frame.
const FULL: usize = 512 * 1024;
/// Most bytes of names that a client may tell for one comparison.
const MAX_NAMES: usize = 256 * 1024 * 1024;
/// Largest file whose signature is made for a delta, in bytes.
const SIGN_UP_TO: u64 = 512 * 1024 * 1024;

/// What the laptop told so far, and what the pod's managed files are now.
#[derive(Default)]
pub(crate) struct Comparison {
    /// The last part of the directories came; another begins a new comparison.
    complete: bool,
    /// Bytes of the names so far.
    names: usize,
    dirs: Vec<DirDigest>,
    entries: BTreeMap<RelPath, Node>,
    /// Managed paths that are not as the ledger says: what is there instead.
    drifted: BTreeMap<RelPath, Option<Found>>,
    differing: BTreeSet<Option<RelPath>>,
}

/// What lies in the place of a managed file, and its stamp from before it was read.
struct Found {
    node: Node,
    stamp: Stamp,
}

impl Root {
    /// Takes a part of the laptop's directory digests; answers after the last, in parts.
    pub(crate) fn compare(
        &mut self,
        tree: Digest,
        dirs: Vec<DirDigest>,
        last: bool,
    ) -> Result<Vec<Reply>, RootError> {
        if self.comparison.as_ref().is_some_and(|c| c.complete) {
            self.comparison = None;
        }
        let comparison = self.comparison.get_or_insert_default();
        comparison.names += dirs.iter().map(|d| d.dir.as_ref().map_or(0, |dir| dir.len())).sum::<usize>();
        comparison.dirs.extend(dirs);
        if comparison.dirs.len() > MAX_ENTRIES || comparison.names > MAX_NAMES {
            return Err(RootError::Protocol("the client named too many directories"));
        }
        if !last {
            return Ok(Vec::new());
        }
        let mut comparison = self.comparison.take().unwrap_or_default();
        let (managed, drifted) = self.managed_tree()?;
        let ours = managed.dir_digests();
        comparison.drifted = drifted;
        comparison.complete = true;
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
        self.adopt(&comparison);
        self.comparison = Some(comparison);
        Ok(self.compared(&differing, gone))
    }

    /// What somebody else wrote is the base from now on where the laptop has the very same: it is no conflict later.
    fn adopt(&mut self, comparison: &Comparison) {
        let named: BTreeSet<_> = comparison.dirs.iter().map(|d| &d.dir).collect();
        let is_equal = |dir: &Option<RelPath>| named.contains(dir) && !comparison.differing.contains(dir);
        for (path, found) in &comparison.drifted {
            let Some(Found { node, stamp }) = found else { continue };
            if is_equal(&path.parent()) {
                let ours = self.ledger.get(path).is_some_and(|record| record.ours);
                self.ledger.put(path.clone(), Record { node: node.clone(), stamp: *stamp, ours });
            }
        }
        // What could not be saved is hashed again by the next session.
        self.ledger.save().ok();
    }

    fn compared(&self, differing: &[u32], gone: bool) -> Vec<Reply> {
        let reply = |differing: &[u32], last| Reply::Compared {
            root: self.id,
            differing: differing.to_vec(),
            gone,
            last,
        };
        if differing.is_empty() {
            return vec![reply(differing, true)];
        }
        let parts = differing.chunks(MAX_PART);
        let count = parts.len();
        parts.enumerate().map(|(index, part)| reply(part, index + 1 == count)).collect()
    }

    /// The managed files as they are now, in the laptop's terms, and those that are not as recorded.
    fn managed_tree(&mut self) -> Result<(Tree, BTreeMap<RelPath, Option<Found>>), RootError> {
        let ids = self.dir.enter();
        let mut tree = Tree::default();
        let mut drifted = BTreeMap::new();
        let records: Vec<_> = self.ledger.records().iter().map(|(p, r)| (p.clone(), r.clone())).collect();
        for (path, record) in records {
            let found = match self.look(&path).map_err(RootError::from) {
                Err(error) if error.is_fatal() => return Err(error),
                found => found.unwrap_or_default(),
            };
            match found {
                Some(metadata) if stamp(&metadata) == record.stamp => {
                    tree.0.insert(path, record.node);
                }
                Some(metadata) => {
                    let node = self.read_now(&path)?;
                    if same_content(node.as_ref(), &record.node) && record.stamp.mode == metadata.mode {
                        let stamp = stamp(&metadata);
                        tree.0.insert(path.clone(), record.node.clone());
                        self.ledger.put(path, Record { stamp, ..record });
                    } else {
                        tree.0.extend(node.clone().map(|node| (path.clone(), node)));
                        drifted.insert(path, node.map(|node| Found { node, stamp: stamp(&metadata) }));
                    }
                }
                None => {
                    drifted.insert(path, None);
                }
            }
        }
        drop(ids);
        self.forget();
        // What could not be saved is hashed again by the next session.
        self.ledger.save().ok();
        Ok((tree, drifted))
    }

    /// Takes a part of the differing directories' entries; answers after the last, in parts through `send`.
    pub(crate) fn manifest<E: From<RootError>>(
        &mut self,
        entries: Vec<Entry>,
        last: bool,
        mut send: impl FnMut(Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        let comparison = self.comparison.as_mut().filter(|c| c.complete);
        let comparison = comparison.ok_or(RootError::Protocol("a manifest came before a comparison"))?;
        for Entry { path, node } in entries {
            if !node_in_bounds(&node) {
                return Err(RootError::Protocol("the client named a file that is out of bounds").into());
            }
            comparison.names +=
                path.len() + if let Node::Symlink { target } = &node { target.len() } else { 0 };
            comparison.entries.insert(path, node);
        }
        if comparison.entries.len() > MAX_ENTRIES || comparison.names > MAX_NAMES {
            return Err(RootError::Protocol("the client named too many files").into());
        }
        if !last {
            return Ok(());
        }
        let comparison = self.comparison.take().unwrap_or_default();
        let mut found = Findings::default();
        let ids = self.dir.enter();
        for (path, node) in &comparison.entries {
            self.examine(path, node, &comparison, &mut found)?;
            if found.weight >= FULL {
                send(found.part(self.id, false))?;
            }
        }
        self.find_deletes(&comparison, &mut found);
        if self.options.delete {
            self.find_extras(&comparison, &mut found)?;
        }
        drop(ids);
        self.forget();
        self.ledger.save().ok();
        loop {
            let reply = found.part(self.id, found.fits_one());
            let last = matches!(reply, Reply::Needs { last: true, .. });
            send(reply)?;
            if last {
                return Ok(());
            }
        }
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
        let metadata = match self.look(path).map_err(RootError::from) {
            Err(error) if error.is_fatal() => return Err(error),
            // What stands in the way is said when it is written.
            Err(_) | Ok(None) => {
                found.need(path, NeedKind::Missing);
                return Ok(());
            }
            Ok(Some(metadata)) => metadata,
        };
        let actual = match (&record, drifted) {
            (Some(record), false) => Some(record.node.clone()),
            _ => self.read_now(path)?,
        };
        let ours = record.as_ref().is_some_and(|r| r.ours);
        if same_content(actual.as_ref(), node) {
            if mode_wanted(record.as_ref(), &metadata, node) {
                found.need(path, NeedKind::Mode);
            } else {
                let record = Record { node: node.clone(), stamp: stamp(&metadata), ours };
                self.ledger.put(path.clone(), record);
            }
        } else if record.is_some() && drifted && !self.options.overwrite {
            found.conflict(path.clone());
        } else if let (Some(Node::File { size, digest, .. }), Node::File { size: new_size, .. }) =
            (&actual, node)
        {
            let signature = match (*size).min(*new_size) >= DELTA_FROM {
                // A file that cannot be read now is sent whole.
                true => self.sign(path, *size).unwrap_or_default(),
                false => None,
            };
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
                Some(Some(Found { node: Node::Dir { .. }, .. })) | None if ours => found.delete(path),
                Some(_) if ours && !self.options.overwrite => found.conflict(path),
                _ if ours => found.delete(path),
                // It was there before devsync; with --delete it shows up among the extras.
                _ => self.ledger.remove(&path),
            }
        }
    }

    /// Files in the pod that neither devsync nor the laptop knows.
    fn find_extras(&mut self, comparison: &Comparison, found: &mut Findings) -> Result<(), RootError> {
        let mut dirs = vec![None::<RelPath>];
        let device = self.dir.directory(b"")?.own_metadata()?.device;
        while let Some(dir) = dirs.pop() {
            let parent = match self.dir.directory(dir.as_ref().map_or(&[], |d| d.as_bytes())) {
                Err(error @ TargetError::Vanished { .. }) => return Err(error.into()),
                // It went away, or is not to be entered: nothing in it will be deleted.
                Err(_) => continue,
                Ok(parent) => parent,
            };
            // A volume's files are not the image's: --delete does not mean them.
            if !parent.own_metadata().is_ok_and(|m| m.device == device) {
                continue;
            }
            let Ok(listing) = parent.read_dir(MAX_ENTRIES) else { continue };
            for entry in listing {
                let path = match &dir {
                    Some(dir) => dir.join(&entry.name),
                    None => RelPath::new(entry.name.clone()),
                };
                let Ok(path) = path else { continue };
                let kind = entry.kind.map_or_else(|| parent.metadata(&entry.name).map(|m| m.kind), Ok);
                if matches!(kind, Ok(Kind::Directory)) {
                    dirs.push(Some(path.clone()));
                }
                if self.ledger.get(&path).is_none() && !comparison.entries.contains_key(&path) {
                    found.extra(path);
                }
            }
            if found.extras.len() > MAX_ENTRIES {
                return Err(TargetError::TooMany { path: self.dir.name().into(), limit: MAX_ENTRIES }.into());
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
    needs: Vec<Need>,
    deletes: VecDeque<RelPath>,
    extras: VecDeque<RelPath>,
    conflicts: VecDeque<RelPath>,
    /// About as many bytes as the needs take in the answer.
    weight: usize,
}

impl Findings {
    fn need(&mut self, path: &RelPath, kind: NeedKind) {
        self.weight += path.len() + 64;
        if let NeedKind::Differs { signature: Some(signature), .. } = &kind {
            self.weight += signature.chunks.len() * 20;
        }
        self.needs.push(Need { path: path.clone(), kind });
    }

    fn delete(&mut self, path: RelPath) {
        self.deletes.push_back(path);
    }

    fn extra(&mut self, path: RelPath) {
        self.extras.push_back(path);
    }

    fn conflict(&mut self, path: RelPath) {
        self.conflicts.push_back(path);
    }

    fn fits_one(&self) -> bool {
        let lists = [&self.deletes, &self.extras, &self.conflicts];
        let bytes = lists.iter().flat_map(|list| list.iter()).map(|path| path.len() + 4);
        // Stops counting early: the lists may be very long.
        bytes
            .scan(0, |sum, bytes| {
                *sum += bytes;
                Some(*sum)
            })
            .all(|sum| sum <= FULL)
            && lists.iter().all(|list| list.len() <= MAX_PART)
    }

    /// The needs so far and as many of the paths as fit; all of them in the last part.
    fn part(&mut self, root: RootId, last: bool) -> Reply {
        self.weight = 0;
        let mut room = if last { usize::MAX } else { FULL };
        let mut take = |list: &mut VecDeque<RelPath>| {
            let mut part = Vec::new();
            while let Some(path) = list.front()
                && path.len() + 4 <= room
                && part.len() < MAX_PART
            {
                room -= path.len() + 4;
                part.extend(list.pop_front());
            }
            part
        };
        let (deletes, extras, conflicts) =
            (take(&mut self.deletes), take(&mut self.extras), take(&mut self.conflicts));
        Reply::Needs { root, needs: std::mem::take(&mut self.needs), deletes, extras, conflicts, last }
    }
}
