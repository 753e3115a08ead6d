//! The laptop's tree in memory, and a client's usual way to bring the pod in step with it.

use std::collections::{BTreeMap, BTreeSet};

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Committed, Content, INLINE, NeedKind, Op, Reply, Request};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Entry, Node, Tree, root_digest};

use crate::peer::Peer;

#[derive(Clone, Default)]
pub(crate) struct Laptop {
    pub(crate) tree: Tree,
    contents: BTreeMap<RelPath, Vec<u8>>,
}

/// What one round of synchronisation was.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// The directories that differed, the root as "".
    pub(crate) differing: Vec<String>,
    pub(crate) gone: bool,
    pub(crate) needs: Vec<String>,
    pub(crate) deletes: Vec<String>,
    pub(crate) extras: Vec<String>,
    pub(crate) conflicts: Vec<String>,
    pub(crate) committed: Option<Committed>,
}

impl Synced {
    /// The batch, which met no problem.
    pub(crate) fn clean(self) -> Committed {
        assert_eq!(self.conflicts, [""; 0]);
        let committed = self.committed.expect("a batch");
        assert!(committed.applied && committed.problems.is_empty(), "{committed:?}");
        committed
    }

    pub(crate) fn is_equal(&self) -> bool {
        self.differing.is_empty() && !self.gone
    }
}

pub(crate) fn path(bytes: impl Into<Vec<u8>>) -> RelPath {
    RelPath::new(bytes).expect("a path")
}

pub(crate) fn file_op(name: &str, mode: u16, content: &[u8]) -> Op {
    let (size, digest) = (content.len() as u64, Digest::of(content));
    Op::File { path: path(name), mode, size, digest, content: Content::Inline(content.to_vec()) }
}

impl Laptop {
    pub(crate) fn file(mut self, name: impl Into<Vec<u8>>, mode: u16, content: &[u8]) -> Self {
        let (size, digest) = (content.len() as u64, Digest::of(content));
        let name = path(name);
        self.tree.0.insert(name.clone(), Node::File { mode, size, digest });
        self.contents.insert(name, content.to_vec());
        self
    }

    pub(crate) fn dir(mut self, name: &str) -> Self {
        self.tree.0.insert(path(name), Node::Dir { mode: 0o755 });
        self
    }

    pub(crate) fn link(mut self, name: &str, target: &str) -> Self {
        self.tree.0.insert(path(name), Node::Symlink { target: target.into() });
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        let gone = path(name);
        self.tree.0.retain(|path, _| !path.is_within(&gone));
        self
    }

    /// Compares, and sends what is needed; deletes what the agent allows.
    pub(crate) fn sync(&self, peer: &mut Peer) -> Synced {
        let mut synced = Synced::default();
        let dirs = self.tree.dir_digests();
        let compare = Request::Compare { root: 0, tree: root_digest(&dirs), dirs: dirs.clone(), last: true };
        let Reply::Compared { differing, gone, last: true, .. } = peer.ask(compare) else {
            panic!("not compared")
        };
        synced.gone = gone;
        let differing: BTreeSet<_> =
            differing.iter().map(|index| dirs[*index as usize].dir.clone()).collect();
        synced.differing =
            differing.iter().map(|dir| dir.as_ref().map_or(String::new(), ToString::to_string)).collect();
        if synced.is_equal() {
            return synced;
        }
        let entries = self.tree.0.iter().filter(|(path, _)| differing.contains(&path.parent()));
        let entries = entries.map(|(path, node)| Entry { path: path.clone(), node: node.clone() }).collect();
        peer.send(&[Request::Manifest { root: 0, entries, last: true }]);
        let mut ops = Vec::new();
        loop {
            let Some(Reply::Needs { needs, deletes, extras, conflicts, last, .. }) = peer.next() else {
                panic!("no needs")
            };
            for need in needs {
                synced.needs.push(need.path.to_string());
                ops.push(self.op(&need.path, matches!(need.kind, NeedKind::Mode)));
            }
            let names = |list: &[RelPath]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
            synced.deletes.extend(names(&deletes));
            synced.extras.extend(names(&extras));
            synced.conflicts.extend(names(&conflicts));
            ops.extend(deletes.into_iter().chain(extras).map(|path| Op::Delete { path }));
            if last {
                break;
            }
        }
        synced.committed = Some(peer.batch(ops));
        synced
    }

    fn op(&self, path: &RelPath, mode_only: bool) -> Op {
        let path = path.clone();
        match self.tree.0[&path].clone() {
            Node::Dir { mode } => Op::Dir { path, mode },
            Node::Symlink { target } => Op::Symlink { path, target },
            Node::File { mode, .. } if mode_only => Op::Mode { path, mode },
            Node::File { mode, size, digest } => {
                let bytes = self.contents[&path].clone();
                assert!(bytes.len() <= INLINE);
                Op::File { path, mode, size, digest, content: Content::Inline(bytes) }
            }
        }
    }
}
