//! Trees: what lies below a sync root, and the digests by which two trees are compared in one trip.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::path::RelPath;

/// Permission bits that travel; set-user-id, set-group-id and sticky never do.
pub const MODE_MASK: u16 = 0o777;
/// Longest symlink target in bytes (`PATH_MAX`).
pub const MAX_LINK: usize = 4096;

/// What one path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A regular file: permission bits, size in bytes and the digest of its content.
    File {
        mode: u16,
        size: u64,
        digest: Digest,
    },
    Dir {
        mode: u16,
    },
    /// A symbolic link, sent as it is: the target is neither resolved nor checked.
    Symlink {
        target: Vec<u8>,
    },
}

impl Node {
    pub fn is_dir(&self) -> bool {
        matches!(self, Node::Dir { .. })
    }

    /// True where a symlink target or a mode is out of bounds, so that the node is refused.
    pub fn is_valid(&self) -> bool {
        match self {
            Node::File { mode, .. } | Node::Dir { mode } => mode & !MODE_MASK == 0,
            Node::Symlink { target } => {
                !target.is_empty() && target.len() <= MAX_LINK && !target.contains(&0)
            }
        }
    }

    fn digest_into(&self, hasher: &mut Hasher) {
        match self {
            Node::File { mode, size, digest } => {
                hasher.update(b"f");
                hasher.update(&mode.to_le_bytes());
                hasher.update(&size.to_le_bytes());
                hasher.update(&digest.0);
            }
            Node::Dir { mode } => {
                hasher.update(b"d");
                hasher.update(&mode.to_le_bytes());
            }
            Node::Symlink { target } => {
                hasher.update(b"l");
                hasher.update(&(target.len() as u64).to_le_bytes());
                hasher.update(target);
            }
        }
    }
}

/// One path and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: RelPath,
    pub node: Node,
}

/// The digest of a directory's own entries, not of what lies deeper. `None` is the sync root itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirDigest {
    pub dir: Option<RelPath>,
    pub digest: Digest,
}

/// All entries below a sync root, in byte order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<RelPath, Node>);

impl Tree {
    /// One digest for each directory that has entries, over (name, node) of its direct children, in
    /// the order of [`Tree`]. Two trees whose lists are equal are equal; where they differ, the lists name the
    /// directories to look into.
    pub fn dir_digests(&self) -> Vec<DirDigest> {
        let mut dirs: BTreeMap<Option<RelPath>, Hasher> = BTreeMap::new();
        dirs.entry(None).or_default();
        for (path, node) in &self.0 {
            if node.is_dir() {
                dirs.entry(Some(path.clone())).or_default();
            }
            let hasher = dirs.entry(path.parent()).or_default();
            hasher.update(&(path.name().len() as u64).to_le_bytes());
            hasher.update(path.name());
            node.digest_into(hasher);
        }
        dirs.into_iter().map(|(dir, hasher)| DirDigest { dir, digest: hasher.finish() }).collect()
    }
}

/// One digest over a list of directory digests: equal exactly where the trees are.
pub fn root_digest(dirs: &[DirDigest]) -> Digest {
    let mut hasher = Hasher::new();
    for DirDigest { dir, digest } in dirs {
        let path = dir.as_ref().map_or(&[][..], |d| d.as_bytes());
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
        hasher.update(&digest.0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, Node)]) -> Tree {
        Tree(entries.iter().map(|(p, n)| (RelPath::new(*p).expect("valid"), n.clone())).collect())
    }

    fn file(content: &str) -> Node {
        Node::File { mode: 0o644, size: content.len() as u64, digest: Digest::of(content.as_bytes()) }
    }

    #[test]
    fn a_change_shows_in_its_own_directory_only() {
        let dir = Node::Dir { mode: 0o755 };
        let a = tree(&[("x", dir.clone()), ("x/a", file("1")), ("y", dir.clone()), ("y/b", file("2"))]);
        let b = tree(&[("x", dir.clone()), ("x/a", file("1")), ("y", dir), ("y/b", file("3"))]);
        let (da, db) = (a.dir_digests(), b.dir_digests());
        assert_eq!(da.len(), 3);
        assert_eq!(da[..2], db[..2]);
        assert_ne!(da[2], db[2]);
        assert_ne!(root_digest(&da), root_digest(&db));
    }

    #[test]
    fn an_empty_directory_counts() {
        let a = tree(&[]);
        let b = tree(&[("x", Node::Dir { mode: 0o755 })]);
        assert_ne!(root_digest(&a.dir_digests()), root_digest(&b.dir_digests()));
    }

    #[test]
    fn file_directory_and_link_of_one_name_differ() {
        let nodes = [file(""), Node::Dir { mode: 0o644 }, Node::Symlink { target: b"t".to_vec() }];
        let digests: Vec<_> =
            nodes.iter().map(|n| root_digest(&tree(&[("n", n.clone())]).dir_digests())).collect();
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    }
}
