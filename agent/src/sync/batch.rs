//! A batch on its way: operations that were received and checked, and files that are staged until the commit.
//!
//! A problem that makes a whole batch impossible (no space, a delta on the wrong base) is remembered; the rest of
//! the batch is then read and dropped, and the commit answers with it.

use std::time::Instant;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{BatchId, Problem, ProblemKind, RootId};
use devsync_protocol::path::RelPath;

use super::stage::Incoming;
use crate::target::temp::Temp;

pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) started: Instant,
    pub(crate) staged: Vec<Staged>,
    /// Bytes of contents that are held in memory.
    pub(crate) memory: usize,
    pub(crate) problems: Vec<Problem>,
    /// The batch cannot be committed.
    pub(crate) failed: bool,
    pub(crate) incoming: Option<Incoming>,
    /// Directories that were made ahead of the commit, for the case that it fails.
    pub(crate) made: Vec<(RootId, RelPath)>,
}

pub(crate) enum Staged {
    /// A directory that replaces something else, or whose mode changes.
    Dir {
        root: RootId,
        path: RelPath,
        mode: u16,
    },
    Symlink {
        root: RootId,
        path: RelPath,
        target: Vec<u8>,
    },
    File(StagedFile),
    Mode {
        root: RootId,
        path: RelPath,
        mode: u16,
    },
    Delete {
        root: RootId,
        path: RelPath,
    },
}

impl Staged {
    pub(crate) fn place(&self) -> (RootId, &RelPath) {
        match self {
            Staged::Dir { root, path, .. }
            | Staged::Symlink { root, path, .. }
            | Staged::Mode { root, path, .. }
            | Staged::Delete { root, path } => (*root, path),
            Staged::File(file) => (file.root, &file.path),
        }
    }
}

pub(crate) struct StagedFile {
    pub(crate) root: RootId,
    pub(crate) path: RelPath,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) body: Body,
}

/// Where a staged file's verified content is.
pub(crate) enum Body {
    Memory(Vec<u8>),
    /// In a temporary file, with the attributes that it will have.
    Temp(Temp),
}

impl Batch {
    pub(crate) fn new(id: BatchId) -> Self {
        Self {
            id,
            started: Instant::now(),
            staged: Vec::new(),
            memory: 0,
            problems: Vec::new(),
            failed: false,
            incoming: None,
            made: Vec::new(),
        }
    }

    /// Notes a problem of one path; conflicts and files that are not devsync's leave the rest of the batch alone.
    pub(crate) fn problem(
        &mut self,
        root: RootId,
        path: &RelPath,
        kind: ProblemKind,
        cause: impl ToString,
        hint: Option<String>,
    ) {
        self.failed |= matches!(kind, ProblemKind::BaseMismatch { .. } | ProblemKind::Io);
        self.problems.push(Problem { root, path: path.clone(), kind, cause: cause.to_string(), hint });
    }
}
