//! Reading back: `pull` and `verify` look at what is really there, never at the ledger's memory.

use std::io::Read;

use devsync_protocol::message::{MAX_DATA, Reply};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Entry, Node};

use super::root::{Root, RootError};

/// Most entries below one directory.
const MAX_DIR: usize = 1_000_000;
/// Most notes about what was skipped.
const MAX_SKIPPED: usize = 50;
/// Bytes in one part of a verification, about.
const PART: usize = 1024 * 1024;

impl Root {
    /// Sends `path` and what is below it through `send`: an entry, and of a file its content behind it.
    pub(crate) fn pull<E: From<RootError>>(
        &mut self,
        path: Option<&RelPath>,
        mut send: impl FnMut(Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut skipped = Vec::new();
        let mut dirs = Vec::new();
        match path {
            None => dirs.push(None),
            Some(path) => self.pull_one(path, &mut dirs, &mut skipped, &mut send)?,
        }
        while let Some(dir) = dirs.pop() {
            let parent = self.dir.directory(dir.as_ref().map_or(&[], |d: &RelPath| d.as_bytes()));
            let mut listing = parent.and_then(|p| p.read_dir(MAX_DIR)).map_err(RootError::from)?;
            listing.sort_by(|a, b| a.name.cmp(&b.name));
            for entry in listing {
                let path = match &dir {
                    Some(dir) => dir.join(&entry.name),
                    None => RelPath::new(entry.name),
                };
                if let Ok(path) = path {
                    self.pull_one(&path, &mut dirs, &mut skipped, &mut send)?;
                }
            }
        }
        send(Reply::PullEnd { skipped })
    }

    fn pull_one<E: From<RootError>>(
        &mut self,
        path: &RelPath,
        dirs: &mut Vec<Option<RelPath>>,
        skipped: &mut Vec<String>,
        send: &mut impl FnMut(Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut skip = |why: String| {
            if skipped.len() < MAX_SKIPPED {
                skipped.push(why);
            }
        };
        let found = self.look(path).map_err(RootError::from)?;
        let Some(metadata) = found else {
            skip(format!("{path}: there is no such file in the pod"));
            return Ok(());
        };
        let node = match self.read_node(path, &metadata) {
            Ok(Some(node)) => node,
            Ok(None) => {
                skip(format!("{path}: it is {}", metadata.kind.name()));
                return Ok(());
            }
            Err(error) => {
                skip(format!("{path}: {error}"));
                return Ok(());
            }
        };
        if node.is_dir() {
            dirs.push(Some(path.clone()));
        }
        let size = if let Node::File { size, .. } = node { size } else { 0 };
        send(Reply::PullEntry(Entry { path: path.clone(), node }))?;
        if size > 0 { self.pull_content(path, size, send) } else { Ok(()) }
    }

    /// Exactly `size` bytes: a file that shrank meanwhile is filled up, and its digest tells the client.
    fn pull_content<E: From<RootError>>(
        &mut self,
        path: &RelPath,
        size: u64,
        send: &mut impl FnMut(Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        let opened = self.parent(path).and_then(|(parent, leaf)| parent.open_read(leaf));
        let (file, _) = opened.map_err(RootError::from)?;
        let mut content = file.take(size).chain(std::io::repeat(0)).take(size);
        let mut left = size;
        while left > 0 {
            let mut piece = vec![0; left.min(MAX_DATA as u64) as usize];
            let read = content.read_exact(&mut piece);
            read.map_err(|source| RootError::Read { path: path.to_string(), source })?;
            left -= piece.len() as u64;
            send(Reply::PullData(piece))?;
        }
        Ok(())
    }

    /// What the managed paths hold now, read anew, in parts; a path that is gone or cannot
    /// be read is left out.
    pub(crate) fn verify(&mut self) -> Result<Vec<Vec<Entry>>, RootError> {
        let paths: Vec<_> = self.ledger.records().iter().map(|(p, r)| (p.clone(), r.node.clone())).collect();
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for (path, sent) in paths {
            let Some(mut node) = self.read_now(&path)? else { continue };
            keep_sent_mode(&mut node, &sent);
            bytes += path.len() + 64 + if let Node::Symlink { target } = &node { target.len() } else { 0 };
            if bytes > PART {
                bytes = 0;
                parts.push(Vec::new());
            }
            if let Some(part) = parts.last_mut() {
                part.push(Entry { path, node });
            }
        }
        Ok(parts)
    }
}

/// Modes are told in the laptop's terms: the pod's may differ from what was sent by design, in all but being
/// executable.
fn keep_sent_mode(node: &mut Node, sent: &Node) {
    if let (Node::File { mode, .. }, Node::File { mode: sent, .. }) = (&mut *node, sent)
        && (*mode & 0o100) == (*sent & 0o100)
    {
        *mode = *sent;
    }
    if let (Node::Dir { mode }, Node::Dir { mode: sent }) = (node, sent) {
        *mode = *sent;
    }
}
