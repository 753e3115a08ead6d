//! The messages of a session, in the order in which a session uses them.
//!
//! Adding a variant at the end of an enum is safe for a peer that never receives it; any other change raises
//! [`crate::handshake::VERSION`]. Requests are answered in order; replies that nobody asked for
//! ([`Reply::Restarted`], [`Reply::Ready`], [`Reply::Crashed`], [`Reply::Gone`]) may come between.

use serde::{Deserialize, Serialize};

use crate::chunk::Signature;
use crate::delta::Step;
use crate::digest::Digest;
use crate::path::{PodPath, RelPath};
use crate::restart::{ReadyReport, RestartFailure, RestartMode, RestartReport};
use crate::target::TargetReport;
use crate::tree::{DirDigest, Entry, Node};

/// A sync root of this session, numbered by the client from 0.
pub type RootId = u16;
/// A batch of this session, numbered by the client from 1, rising.
pub type BatchId = u32;

/// Most sync roots in a session.
pub const MAX_ROOTS: usize = 64;
/// Most entries below one sync root.
pub const MAX_ENTRIES: usize = 2_000_000;
/// Most elements of one list in one message; longer lists come in parts.
pub const MAX_PART: usize = 100_000;
/// Most globs in [`RootOptions::inplace`].
pub const MAX_GLOBS: usize = 1000;
/// Most operations in one batch.
pub const MAX_OPS: usize = 2_000_000;
/// Largest file, in bytes.
pub const MAX_FILE: u64 = 1 << 40;
/// Largest content that travels inside its [`Op::File`]; longer contents follow as [`Request::Steps`].
pub const INLINE: usize = 128 * 1024;
/// Most bytes of data in one [`Request::Steps`] or [`Reply::PullData`].
pub const MAX_DATA: usize = 512 * 1024;
/// Files of at least this size are sent as a delta where the pod has an older version.
pub const DELTA_FROM: u64 = 64 * 1024;

/// What the client asks of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Opens a sync root: answered by [`Reply::Opened`] or [`Reply::Refused`], before any byte is written.
    Open { root: RootId, place: Place, options: RootOptions },
    /// The laptop's tree by its digests, in one or more parts. Answered after the last by [`Reply::Compared`].
    Compare {
        root: RootId,
        tree: Digest,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        dirs: Vec<DirDigest>,
        last: bool,
    },
    /// The entries of those directories that differ. Answered after the last by [`Reply::Needs`].
    Manifest {
        root: RootId,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        entries: Vec<Entry>,
        last: bool,
    },
    /// Begins a batch: operations, then [`Request::Commit`].
    Begin { batch: BatchId },
    /// One operation of the batch.
    Op { root: RootId, op: Op },
    /// The content of the last [`Op::File`] whose content is [`Content::Follows`]; ends when its size is reached.
    Steps(#[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")] Vec<Step>),
    /// Everything of the batch was sent; answered by [`Reply::Committed`].
    Commit { batch: BatchId },
    /// Forgets the batch; its temporary files are removed. Not answered.
    Abandon { batch: BatchId },
    /// Restarts the app, unless batch `after` failed. Answered by [`Reply::Restarted`] or
    /// [`Reply::RestartFailed`], and after a success by [`Reply::Ready`]. A newer request supersedes one that waits,
    /// which is then not answered.
    Restart { seq: u32, after: Option<BatchId>, mode: RestartMode, grace_ms: u32 },
    /// Digests of all managed entries, read anew from the pod: answered by [`Reply::Digests`].
    Verify { root: RootId },
    /// Reads `path` (a file, or a directory and what is below it; `None`: the whole root): answered by
    /// [`Reply::PullEntry`] and [`Reply::PullData`], then [`Reply::PullEnd`].
    Pull { root: RootId, path: Option<RelPath> },
    /// Looks for directories in the app's root that hold these files: answered by [`Reply::Found`].
    Search {
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        files: Vec<Wanted>,
    },
    /// Which of these exist in the app's root (links followed inside it): answered by [`Reply::Exists`].
    Exists {
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        paths: Vec<PodPath>,
    },
    /// Answered by [`Reply::Pong`].
    Ping { nonce: u64 },
}

/// Where a sync root lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The app's current working directory.
    Cwd,
    /// A directory below it.
    BelowCwd(RelPath),
    /// A directory of the app's root; made if it is missing.
    At(PodPath),
}

/// How a sync root is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootOptions {
    /// Report files that the laptop does not have, and allow them to be deleted.
    pub delete: bool,
    /// Overwrite files that changed in the pod since devsync wrote them.
    pub overwrite: bool,
    /// Globs of files that are written in place, for apps that watch one inode.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_GLOBS>")]
    pub inplace: Vec<String>,
    /// Nothing will be written; no check that it could be.
    pub dry_run: bool,
}

/// One change below a sync root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Dir {
        path: RelPath,
        mode: u16,
    },
    Symlink {
        path: RelPath,
        target: Vec<u8>,
    },
    File {
        path: RelPath,
        mode: u16,
        size: u64,
        digest: Digest,
        content: Content,
    },
    /// The laptop's permission bits changed, the content did not.
    Mode {
        path: RelPath,
        mode: u16,
    },
    /// A file or link, or a directory that is empty once the batch's other deletes are done.
    Delete {
        path: RelPath,
    },
}

impl Op {
    pub fn path(&self) -> &RelPath {
        match self {
            Op::Dir { path, .. }
            | Op::Symlink { path, .. }
            | Op::File { path, .. }
            | Op::Mode { path, .. }
            | Op::Delete { path } => path,
        }
    }
}

/// The bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// All of it, at most [`INLINE`] bytes.
    Inline(#[serde(with = "crate::bytes")] Vec<u8>),
    /// As [`Request::Steps`]; `base` is the digest of the pod's version that copies and patches refer to.
    Follows { base: Option<Digest> },
}

/// A file to look for: its path as on the laptop, and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub path: RelPath,
    pub digest: Digest,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The first message after the handshake.
    Welcome {
        agent: String,
        target: Box<TargetReport>,
        auto: AutoRestart,
    },
    Opened {
        root: RootId,
        path: PodPath,
        exists: bool,
        notes: Vec<String>,
    },
    /// Indices into the list of [`Request::Compare`], of directories that differ; all equal where it is empty
    /// and `gone` is false. `gone`: the pod has managed directories that the laptop's list does not name.
    Compared {
        root: RootId,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        differing: Vec<u32>,
        gone: bool,
        last: bool,
    },
    /// What must be sent, in one or more parts.
    Needs {
        root: RootId,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        needs: Vec<Need>,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        deletes: Vec<RelPath>,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        extras: Vec<RelPath>,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        conflicts: Vec<RelPath>,
        last: bool,
    },
    Committed(Box<Committed>),
    Restarted {
        seq: u32,
        report: RestartReport,
    },
    RestartFailed {
        seq: u32,
        failure: RestartFailure,
    },
    Ready {
        seq: u32,
        report: ReadyReport,
    },
    Digests {
        root: RootId,
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        entries: Vec<Entry>,
        exe: Option<Digest>,
        last: bool,
    },
    PullEntry(Entry),
    PullData(#[serde(with = "crate::bytes")] Vec<u8>),
    PullEnd {
        skipped: Vec<String>,
    },
    Found {
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        places: Vec<FoundPlace>,
    },
    Exists {
        #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
        found: Vec<bool>,
    },
    Pong {
        nonce: u64,
    },
    /// The app's process ended, and with it the target.
    Gone {
        reason: String,
    },
    /// The app crashed and devsync-run holds its container: the next restart starts it. `output`: the last of it.
    Crashed {
        cause: String,
        output: Vec<u8>,
    },
    /// A request could not be served; the session goes on unless `fatal`.
    Refused(Refusal),
    /// Right after the welcome, where devsync-run is there and no app runs: why, and the last of its output.
    /// `waits`: it was never started, and is when the first sync is in place.
    Held {
        cause: String,
        output: Vec<u8>,
        waits: bool,
    },
}

/// What restart mode `auto` means for this app, found out before the first write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoRestart {
    /// Never `Auto`; `None` where nothing that is permitted would restart the app.
    pub mode: RestartMode,
    /// Why this mode, in one sentence.
    pub why: String,
    /// What would make a better one possible.
    pub hint: Option<String>,
}

/// A clear no: what was refused, why, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub what: String,
    pub cause: String,
    pub hint: Option<String>,
    pub fatal: bool,
}

/// One entry that the pod lacks or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub path: RelPath,
    pub kind: NeedKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeedKind {
    /// The pod has nothing, or something of another type, there.
    Missing,
    /// The content is the same, the permission bits are not.
    Mode,
    /// The pod has another version; `signature` where it is large enough for a delta.
    Differs { digest: Digest, signature: Option<Signature> },
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub batch: BatchId,
    /// False: nothing was changed, and `problems` says why.
    pub applied: bool,
    /// Operations that were carried out.
    pub changed: u32,
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
    pub problems: Vec<Problem>,
    /// Files that were written in place, since a rename could not work there or a glob asked for it.
    #[serde(deserialize_with = "crate::bounded::list::<_, _, MAX_PART>")]
    pub in_place: Vec<RelPath>,
    /// Microseconds from the batch's first message to its last staged byte.
    pub stage_us: u64,
    /// Microseconds for the renames.
    pub commit_us: u64,
}

/// What went wrong with one path of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub root: RootId,
    pub path: RelPath,
    pub kind: ProblemKind,
    pub cause: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProblemKind {
    /// The pod's file changed since devsync wrote it; it was kept.
    Conflict,
    /// The delta's base is not what the pod holds: send the file whole, or against this version.
    BaseMismatch { signature: Option<(Digest, Signature)> },
    /// Not devsync's to delete; it was kept.
    Kept,
    /// The kernel said no.
    Io,
}

/// A directory that holds some of the wanted files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPlace {
    pub dir: PodPath,
    /// How many of the wanted files have their name there.
    pub names: u32,
    /// How many of those have the wanted content.
    pub same: u32,
}

/// True where every bound that the types do not carry holds.
pub fn node_in_bounds(node: &Node) -> bool {
    node.is_valid() && !matches!(node, Node::File { size, .. } if *size > MAX_FILE)
}
