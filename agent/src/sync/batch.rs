//! A batch on its way: operations that were received and checked, and files that are staged until the commit.
//!
//! A problem that makes a whole batch impossible (no space, a delta on the wrong base) is remembered; the rest of
//! the batch is then read and dropped, and the commit answers with it.

use std::collections::BTreeSet;
use std::time::Instant;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{BatchId, Problem, ProblemKind, RootId};
use devsync_protocol::path::RelPath;

use super::ledger::Stamp;
use super::stage::Incoming;
use crate::target::temp::Temp;

/// Problems are told up to this many bytes, so that the answer fits a frame.
const MAX_TOLD: usize = 3 * 1024 * 1024;

pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) started: Instant,
    pub(crate) staged: Vec<Staged>,
    /// Bytes of contents that are held in memory.
    pub(crate) memory: usize,
    /// Bytes of paths and link targets.
    pub(crate) names: usize,
    pub(crate) problems: Vec<Problem>,
    /// About as many bytes as the problems take in the answer, and how many no longer fit.
    told: usize,
    untold: usize,
    /// The batch cannot be committed.
    pub(crate) failed: bool,
    pub(crate) incoming: Option<Incoming>,
    /// Directories that were made ahead of the commit, for the case that it fails.
    pub(crate) made: Vec<(RootId, RelPath)>,
    /// Directories that will replace something else: what is found below them now is not what will be there.
    pub(crate) replaced: BTreeSet<(RootId, RelPath)>,
    /// Places where something else stays, so that nothing can come below them.
    pub(crate) blocked: BTreeSet<(RootId, RelPath)>,
}

/// One checked operation.
pub(crate) struct Staged {
    pub(crate) root: RootId,
    pub(crate) path: RelPath,
    /// What must still lie there at the commit; `None` where the pod's version does not matter.
    pub(crate) expected: Option<Stamp>,
    pub(crate) change: Change,
}

pub(crate) enum Change {
    /// A directory that replaces something else, or whose mode changes.
    Dir {
        mode: u16,
    },
    Symlink {
        target: Vec<u8>,
    },
    File(StagedFile),
    Mode {
        mode: u16,
    },
    Delete,
}

pub(crate) struct StagedFile {
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) body: Body,
}

/// Where a staged file's verified content is.
pub(crate) enum Body {
    Memory(Vec<u8>),
    /// In a temporary file, closed, with the attributes that it will have.
    Temp(Dressed),
}

/// A temporary file that is ready to take its place, and what it was then.
pub(crate) struct Dressed {
    pub(crate) temp: Temp,
    pub(crate) stamp: Stamp,
}

impl Batch {
    pub(crate) fn new(id: BatchId) -> Self {
        Self {
            id,
            started: Instant::now(),
            staged: Vec::new(),
            memory: 0,
            names: 0,
            problems: Vec::new(),
            told: 0,
            untold: 0,
            failed: false,
            incoming: None,
            made: Vec::new(),
            replaced: BTreeSet::new(),
            blocked: BTreeSet::new(),
        }
    }

    /// Notes a problem of one path; conflicts and files that are not devsync's leave the rest of the batch alone,
    /// unless they are too many to be told.
    pub(crate) fn problem(
        &mut self,
        root: RootId,
        path: &RelPath,
        mut kind: ProblemKind,
        cause: impl ToString,
        hint: Option<String>,
    ) {
        self.failed |= matches!(kind, ProblemKind::BaseMismatch { .. } | ProblemKind::Io);
        let cause = cause.to_string();
        let bytes = path.len() + cause.len() + hint.as_ref().map_or(0, String::len) + 64;
        if let ProblemKind::BaseMismatch { signature } = &mut kind {
            let chunks = signature.as_ref().map_or(0, |(_, s)| s.chunks.len() * 20);
            if self.told + bytes + chunks > MAX_TOLD {
                *signature = None;
            } else {
                self.told += chunks;
            }
        }
        if self.told + bytes > MAX_TOLD {
            self.untold += 1;
            self.failed = true;
            return;
        }
        self.told += bytes;
        self.problems.push(Problem { root, path: path.clone(), kind, cause, hint });
    }

    /// The pod's file is kept since it is not what devsync wrote.
    pub(crate) fn conflict(&mut self, root: RootId, path: &RelPath) {
        let hint = "look at it with `devsync pull`, then attach with --overwrite, or delete it in the pod";
        let cause = "it changed in the pod since devsync wrote it, and was kept";
        self.problem(root, path, ProblemKind::Conflict, cause, Some(hint.to_owned()));
    }

    /// All problems; the last says how many more there were.
    pub(crate) fn take_problems(&mut self) -> Vec<Problem> {
        if let (Some(last), 1..) = (self.problems.last_mut(), self.untold) {
            last.cause = format!("{}; and {} more such problems", last.cause, self.untold);
        }
        std::mem::take(&mut self.problems)
    }

    /// True where nothing can come to `path` since something else stays above it.
    pub(crate) fn is_blocked(&self, root: RootId, path: &RelPath) -> bool {
        topmost(&self.blocked, root, path).is_some()
    }

    /// The topmost directory above `path` that will replace something else.
    pub(crate) fn replaced_above(&self, root: RootId, path: &RelPath) -> Option<RelPath> {
        topmost(&self.replaced, root, path)
    }
}

/// The shortest of `path`'s proper ancestors in `set`.
fn topmost(set: &BTreeSet<(RootId, RelPath)>, root: RootId, path: &RelPath) -> Option<RelPath> {
    if set.is_empty() {
        return None;
    }
    let above = std::iter::successors(path.parent(), RelPath::parent);
    above.filter(|dir| set.contains(&(root, dir.clone()))).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_that_would_not_fit_an_answer_fail_the_batch_and_are_counted() -> anyhow::Result<()> {
        let mut batch = Batch::new(1);
        let path = RelPath::new("a")?;
        for _ in 0..4 {
            batch.problem(0, &path, ProblemKind::Conflict, "c".repeat(1 << 20), None);
        }
        assert!(batch.failed);
        let problems = batch.take_problems();
        assert_eq!(problems.len(), 2);
        assert!(problems[1].cause.ends_with("and 2 more such problems"));
        Ok(())
    }

    #[test]
    fn what_lies_below_a_replaced_directory_is_known() -> anyhow::Result<()> {
        let mut batch = Batch::new(1);
        batch.replaced.insert((0, RelPath::new("a/b")?));
        assert_eq!(batch.replaced_above(0, &RelPath::new("a/b/c/d")?), Some(RelPath::new("a/b")?));
        assert_eq!(batch.replaced_above(0, &RelPath::new("a/b")?), None);
        assert_eq!(batch.replaced_above(0, &RelPath::new("a/bc/d")?), None);
        assert_eq!(batch.replaced_above(1, &RelPath::new("a/b/c")?), None);
        Ok(())
    }
}
