//! The comparison of two trees over a session: sent in parts that fit a frame, answers taken up to a bound.
//!
//! Knows nothing of files here.

use devsync_protocol::message::{MAX_ENTRIES, Need, NeedKind, Reply, Request, RootId};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{DirDigest, Entry, Node, root_digest};

use crate::session::{Call, Handle, SessionError};

/// Bytes in one part, far below a frame's.
const PART: usize = 1 << 20;
/// Bytes that the answers to one question may take in memory.
const ANSWER: usize = 512 << 20;
/// What an entry takes beside its names.
const ENTRY: usize = 64;

/// What the agent said is to be done, by the names in the pod.
#[derive(Debug, Default)]
pub struct Needs {
    pub needs: Vec<Need>,
    pub deletes: Vec<RelPath>,
    pub extras: Vec<RelPath>,
    pub conflicts: Vec<RelPath>,
}

/// What an answer in parts may still grow by.
pub struct Budget {
    call: &'static str,
    entries: usize,
    bytes: usize,
}

impl Budget {
    pub fn new(call: &'static str) -> Self {
        Self { call, entries: MAX_ENTRIES, bytes: ANSWER }
    }

    /// Takes one more part, by the bytes of each of its entries. An empty one counts too.
    pub fn take(&mut self, weights: impl Iterator<Item = usize>) -> Result<(), SessionError> {
        let (entries, bytes) = weights.fold((0, ENTRY), |(n, sum), weight| (n + 1, sum + ENTRY + weight));
        match (self.entries.checked_sub(entries), self.bytes.checked_sub(bytes)) {
            (Some(entries), Some(bytes)) => {
                (self.entries, self.bytes) = (entries, bytes);
                Ok(())
            }
            _ => Err(SessionError::TooMuch { call: self.call }),
        }
    }
}

/// The bytes of an entry's names.
pub fn entry_weight(entry: &Entry) -> usize {
    let link = match &entry.node {
        Node::Symlink { target } => target.len(),
        _ => 0,
    };
    entry.path.as_bytes().len() + link
}

fn need_weight(need: &Need) -> usize {
    let signature = match &need.kind {
        NeedKind::Differs { signature: Some(signature), .. } => signature.chunks.len() * 20,
        _ => 0,
    };
    need.path.as_bytes().len() + signature
}

/// Parts that are small enough to be sent; at least one.
fn parts<T>(items: &[T], weight: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, item) in items.iter().enumerate() {
        let weight = ENTRY + weight(item);
        if sum + weight > PART && at > from {
            parts.push(&items[from..at]);
            (from, sum) = (at, 0);
        }
        sum += weight;
    }
    parts.push(&items[from..]);
    parts
}

/// Which of `dirs` differ in the pod, and whether it has managed ones beside them.
pub async fn compare(
    handle: &Handle,
    root: RootId,
    dirs: &[DirDigest],
) -> Result<(Vec<u32>, bool), SessionError> {
    let tree = root_digest(dirs);
    let mut outgoing = handle.outgoing().await;
    let mut answers = outgoing.expect(Call::Compare);
    let parts = parts(dirs, |dir| dir.dir.as_ref().map_or(0, |d| d.as_bytes().len()));
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        outgoing.push(&Request::Compare { root, tree, dirs: part.to_vec(), last }).await?;
    }
    outgoing.flush().await?;
    drop(outgoing);
    let (mut differing, mut gone, mut budget) = (Vec::new(), false, Budget::new("compare"));
    loop {
        let Reply::Compared { differing: more, gone: any, last, .. } = answers.next().await? else {
            return Ok((differing, gone));
        };
        budget.take(more.iter().map(|_| 0))?;
        differing.extend(more);
        gone |= any;
        if last {
            return Ok((differing, gone));
        }
    }
}

/// What the pod needs of `entries`.
pub async fn needs(handle: &Handle, root: RootId, entries: &[Entry]) -> Result<Needs, SessionError> {
    let mut outgoing = handle.outgoing().await;
    let mut answers = outgoing.expect(Call::Manifest);
    let parts = parts(entries, entry_weight);
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        outgoing.push(&Request::Manifest { root, entries: part.to_vec(), last }).await?;
    }
    outgoing.flush().await?;
    drop(outgoing);
    let mut all = Needs::default();
    let (mut budget, mut others) = (Budget::new("manifest"), Budget::new("manifest"));
    loop {
        let Reply::Needs { needs, deletes, extras, conflicts, last, .. } = answers.next().await? else {
            return Ok(all);
        };
        budget.take(needs.iter().map(need_weight))?;
        let paths = deletes.iter().chain(&extras).chain(&conflicts);
        others.take(paths.map(|p| p.as_bytes().len()))?;
        all.needs.extend(needs);
        all.deletes.extend(deletes);
        all.extras.extend(extras);
        all.conflicts.extend(conflicts);
        if last {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_tree_is_sent_in_parts_that_fit() {
        let items = vec![(); 2000];
        let cut = parts(&items, |()| 4095);
        assert!(cut.len() > 4);
        assert!(cut.iter().all(|part| part.len() * (4095 + ENTRY) <= PART));
        assert_eq!(cut.iter().map(|part| part.len()).sum::<usize>(), items.len());
        assert_eq!(parts::<()>(&[], |()| 0).len(), 1);
    }

    #[test]
    fn answers_end_somewhere() {
        let mut budget = Budget::new("verify");
        assert!(budget.take([100; 1000].into_iter()).is_ok());
        assert!(budget.take([ANSWER].into_iter()).is_err());
        assert!(budget.take((0..MAX_ENTRIES).map(|_| 0)).is_err(), "1000 are there already");
        let mut empty = Budget::new("verify");
        assert!((0..ANSWER / ENTRY + 1).any(|_| empty.take(std::iter::empty()).is_err()));
    }
}
