//! Staging: operations are checked against the ledger as they arrive, contents are rebuilt from their deltas and
//! verified. Small batches stay in memory until the commit; what is larger goes to temporary files at once.

mod incoming;

use std::fs::File;
use std::io::Write;

use devsync_protocol::delta::{Applier, Step};
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::{Content, DELTA_FROM, MAX_FILE, Op, ProblemKind};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{MAX_LINK, MODE_MASK, Node};
use nix::errno::Errno;

pub(crate) use self::incoming::Incoming;
use self::incoming::{Announced, Broken, Sink};
use super::batch::{Batch, Body, Change, Dressed, Staged, StagedFile};
use super::ledger::{Record, Stamp};
use super::root::{Root, RootError, is_missing, stamp};
use crate::target::metadata::Metadata;
use crate::target::temp::Temp;

/// A batch holds at most this many bytes of contents in memory.
const MEMORY: usize = 16 * 1024 * 1024;
/// Most bytes of paths and link targets in a batch.
const MAX_NAMES: usize = 256 * 1024 * 1024;
pub(crate) const BLOCKED: &str = "something else was kept where its directory is to be";

enum Allowed {
    /// With what must still lie there at the commit.
    Yes(Option<Stamp>),
    No,
}

impl Root {
    /// Checks one operation and stages it.
    pub(crate) fn stage(&mut self, batch: &mut Batch, op: Op) -> Result<(), RootError> {
        let path = op.path().clone();
        batch.names += path.len() + if let Op::Symlink { target, .. } = &op { target.len() } else { 0 };
        if let Some(why) = out_of_bounds(batch, &op) {
            return Err(RootError::Protocol(why));
        }
        let follows = match &op {
            Op::File { size, content: Content::Follows { .. }, .. } => *size,
            _ => 0,
        };
        let staged = self.stage_checked(batch, op);
        if let Err(error) = &staged {
            self.fail(batch, &path, error);
        }
        if follows > 0 && !matches!(staged, Ok(true)) {
            // Its content is on its way already, and is dropped when it comes.
            batch.incoming = Some(Incoming::dropped(self.id, path, follows));
        }
        Ok(())
    }

    /// False where the operation was refused, and the batch says why.
    fn stage_checked(&mut self, batch: &mut Batch, op: Op) -> Result<bool, RootError> {
        let path = op.path().clone();
        if batch.is_blocked(self.id, &path) {
            batch.problem(self.id, &path, ProblemKind::Kept, BLOCKED, None);
            return Ok(false);
        }
        let expected = match batch.replaced_above(self.id, &path) {
            Some(_) => None,
            None => match self.allowed(batch, &op)? {
                Allowed::Yes(expected) => expected,
                Allowed::No => {
                    batch.blocked.insert((self.id, path));
                    return Ok(false);
                }
            },
        };
        if batch.failed {
            // Nothing of it will be used; but wrong bases are all told at once.
            if let Op::File { content: Content::Follows { base: Some(base) }, .. } = &op {
                self.open_base(batch, &path, *base)?;
            }
            return Ok(false);
        }
        let (root, change) = (
            self.id,
            match op {
                Op::Dir { mode, .. } => return self.stage_dir(batch, path, mode, expected),
                Op::Symlink { target, .. } => Change::Symlink { target },
                Op::Mode { mode, .. } => Change::Mode { mode },
                Op::Delete { .. } => Change::Delete,
                Op::File { mode, size, digest, content: Content::Inline(bytes), .. } => {
                    if Digest::of(&bytes) != digest || bytes.len() as u64 != size {
                        return Err(RootError::NotItsDigest);
                    }
                    let body = self.keep(batch, &path, mode, bytes)?;
                    Change::File(StagedFile { mode, size, digest, body })
                }
                Op::File { mode, size, digest, content: Content::Follows { base }, .. } => {
                    let file = Announced { path, mode, size, digest, expected };
                    return self.await_steps(batch, file, base);
                }
            },
        );
        batch.staged.push(Staged { root, path, expected, change });
        Ok(true)
    }

    /// Makes ready for the steps of a file.
    fn await_steps(
        &mut self,
        batch: &mut Batch,
        file: Announced,
        base: Option<Digest>,
    ) -> Result<bool, RootError> {
        let (base, base_len) = match base {
            Some(base) if file.size > 0 => match self.open_base(batch, &file.path, base)? {
                Some((base, len)) => (Some(base), len),
                None => return Ok(false),
            },
            _ => (None, 0),
        };
        let small = file.size <= (MEMORY - batch.memory.min(MEMORY)) as u64;
        let sink = match small {
            true => Sink::Memory(Vec::with_capacity(file.size as usize)),
            false => Sink::Temp(self.temp_for(batch, &file.path)?),
        };
        let applier = Applier::new(base_len, file.size);
        batch.incoming = Some(Incoming { root: self.id, file, applier, base, hasher: Hasher::new(), sink });
        self.finish_incoming(batch)?;
        Ok(true)
    }

    /// Takes steps of the file that is arriving.
    pub(crate) fn steps(&mut self, batch: &mut Batch, steps: &[Step]) -> Result<(), RootError> {
        let incoming = batch.incoming.as_mut().ok_or(RootError::Protocol("contents came without a file"))?;
        let path = incoming.file.path.clone();
        match incoming.take(steps)? {
            None => {}
            Some(Broken::Base) => {
                let kind = ProblemKind::BaseMismatch { signature: None };
                batch.problem(self.id, &path, kind, "the pod's version became shorter meanwhile", None);
            }
            Some(Broken::Kernel(cause)) => self.fail_with(batch, &path, cause, None),
        }
        if let Err(error) = self.finish_incoming(batch) {
            self.fail(batch, &path, &error);
        }
        Ok(())
    }

    /// Verifies and stages the file that is arriving, if it is complete.
    fn finish_incoming(&mut self, batch: &mut Batch) -> Result<(), RootError> {
        if batch.incoming.as_ref().is_none_or(|incoming| incoming.left() > 0) {
            return Ok(());
        }
        let Some(Incoming { root, file, hasher, sink, .. }) = batch.incoming.take() else { return Ok(()) };
        let Announced { path, mode, size, digest, expected } = file;
        if let Sink::Nowhere { .. } = sink {
            return Ok(());
        }
        if hasher.finish() != digest {
            let kind = ProblemKind::BaseMismatch { signature: None };
            batch.problem(root, &path, kind, "the rebuilt file is not what its digest says", None);
            return Ok(());
        }
        let body = match sink {
            Sink::Memory(bytes) => {
                batch.memory += bytes.len();
                Body::Memory(bytes)
            }
            Sink::Temp(temp) => Body::Temp(self.dress(batch, temp, &path, mode)?),
            Sink::Nowhere { .. } => return Ok(()),
        };
        let change = Change::File(StagedFile { mode, size, digest, body });
        batch.staged.push(Staged { root, path, expected, change });
        Ok(())
    }

    /// Holds a small content in memory while the batch is small, else in a temporary file.
    fn keep(
        &mut self,
        batch: &mut Batch,
        path: &RelPath,
        mode: u16,
        bytes: Vec<u8>,
    ) -> Result<Body, RootError> {
        if batch.memory + bytes.len() <= MEMORY {
            batch.memory += bytes.len();
            return Ok(Body::Memory(bytes));
        }
        Ok(Body::Temp(self.write_temp(batch, path, mode, &bytes)?))
    }

    /// A temporary file with `bytes`, ready for its place.
    pub(crate) fn write_temp(
        &mut self,
        batch: &Batch,
        path: &RelPath,
        mode: u16,
        bytes: &[u8],
    ) -> Result<Dressed, RootError> {
        let mut temp = self.temp_for(batch, path)?;
        temp.write_all(bytes).map_err(|source| RootError::Write { path: path.to_string(), source })?;
        self.dress(batch, temp, path, mode)
    }

    /// A new temporary file beside `path`; where directories on its way are still missing, in the deepest that
    /// is there, which lies on the same file system.
    fn temp_for(&mut self, batch: &Batch, path: &RelPath) -> Result<Temp, RootError> {
        let replaced = batch.replaced_above(self.id, path);
        let mut dir = replaced.as_ref().unwrap_or(path).parent();
        let parent = loop {
            let bytes = dir.as_ref().map_or(&[][..], |d| d.as_bytes());
            match self.directory(bytes) {
                Err(e) if dir.is_some() && is_missing(&e) => dir = dir.and_then(|d| d.parent()),
                opened => break opened?.clone(),
            }
        };
        self.note_temp_in(dir.as_ref())?;
        Ok(parent.create_temp()?)
    }

    /// To be called before a temporary name is made, so that it is swept if the agent is killed.
    pub(crate) fn note_temp_in(&mut self, dir: Option<&RelPath>) -> Result<(), RootError> {
        let noted = self.marks.note(dir.map_or(&[], |d| d.as_bytes()));
        noted.map_err(|source| RootError::Marks { source })
    }

    /// Makes a directory that is missing at once, since nothing is replaced by it; the rest waits for the commit.
    fn stage_dir(
        &mut self,
        batch: &mut Batch,
        path: RelPath,
        mode: u16,
        expected: Option<Stamp>,
    ) -> Result<bool, RootError> {
        let root = self.id;
        let below_replaced = batch.replaced_above(root, &path).is_some();
        let found = if below_replaced { None } else { self.look(&path)? };
        if found.is_none() && !below_replaced {
            let made = self.parent(&path).and_then(|(parent, leaf)| parent.mkdir(leaf, mode.into()));
            match made {
                Ok(()) => {
                    self.record_now(&path, Node::Dir { mode }, true)?;
                    batch.made.push((root, path));
                    return Ok(true);
                }
                // The app made something there meanwhile, or removed what is above: the commit looks again.
                Err(e) if is_missing(&e) || e.errno() == Some(Errno::EEXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        if found.is_some_and(|found| !found.is_directory()) {
            batch.replaced.insert((root, path.clone()));
        }
        batch.staged.push(Staged { root, path, expected, change: Change::Dir { mode } });
        Ok(true)
    }

    /// Puts what now lies at `path` into the ledger.
    pub(crate) fn record_now(&mut self, path: &RelPath, node: Node, ours: bool) -> Result<(), RootError> {
        if let Some(metadata) = self.look(path)? {
            self.ledger.put(path.clone(), Record { node, stamp: stamp(&metadata), ours });
        }
        Ok(())
    }

    /// Whether the pod's file may be replaced: not where it changed since devsync wrote it, and not deleted where
    /// devsync did not write it.
    fn allowed(&mut self, batch: &mut Batch, op: &Op) -> Result<Allowed, RootError> {
        let path = op.path();
        let record = self.ledger.get(path).cloned();
        let Some(metadata) = self.look(path)? else { return Ok(Allowed::Yes(None)) };
        let deletes = matches!(op, Op::Delete { .. });
        if deletes && !record.as_ref().is_some_and(|r| r.ours) && !self.options.delete {
            let hint = Some("with --delete, files that devsync did not write are deleted too".to_owned());
            batch.problem(self.id, path, ProblemKind::Kept, "devsync did not write it", hint);
            return Ok(Allowed::No);
        }
        let Some(record) = record.filter(|_| !self.options.overwrite) else {
            return Ok(Allowed::Yes(None));
        };
        if metadata.is_directory() {
            return Ok(Allowed::Yes(None));
        }
        let now = stamp(&metadata);
        if now == record.stamp {
            return Ok(Allowed::Yes(Some(now)));
        }
        let actual = self.read_now(path)?;
        let same = |node: &Node| match (&actual, node) {
            (Some(Node::File { digest: a, .. }), Node::File { digest: b, .. }) => a == b,
            (actual, node) => actual.as_ref() == Some(node),
        };
        let wanted = match op {
            Op::File { mode, size, digest, .. } => {
                Some(Node::File { mode: *mode, size: *size, digest: *digest })
            }
            Op::Symlink { target, .. } => Some(Node::Symlink { target: target.clone() }),
            _ => None,
        };
        if same(&record.node) || wanted.as_ref().is_some_and(same) {
            return Ok(Allowed::Yes(Some(now)));
        }
        batch.conflict(self.id, path);
        Ok(Allowed::No)
    }

    /// The pod's version that a delta refers to; a problem is noted where it is another.
    fn open_base(
        &mut self,
        batch: &mut Batch,
        path: &RelPath,
        wanted: Digest,
    ) -> Result<Option<(File, u64)>, RootError> {
        let found = self.look(path)?.filter(Metadata::is_file);
        let Some(metadata) = found else {
            let kind = ProblemKind::BaseMismatch { signature: None };
            batch.problem(self.id, path, kind, "the pod no longer has it", None);
            return Ok(None);
        };
        let recorded = self.ledger.get(path).filter(|r| r.stamp == stamp(&metadata)).map(|r| &r.node);
        let digest = match recorded {
            Some(Node::File { digest, .. }) => *digest,
            _ => self.digest(path)?,
        };
        if digest != wanted {
            let large = metadata.size >= DELTA_FROM;
            let signature = if large { self.sign(path, metadata.size)? } else { None };
            let kind = ProblemKind::BaseMismatch { signature: signature.map(|s| (digest, s)) };
            batch.problem(self.id, path, kind, "the pod has another version", None);
            return Ok(None);
        }
        let (parent, leaf) = self.parent(path)?;
        let (file, metadata) = parent.open_read(leaf)?;
        Ok(Some((file, metadata.size)))
    }

    fn fail(&self, batch: &mut Batch, path: &RelPath, error: &RootError) {
        self.fail_with(batch, path, chain(error), error.hint());
    }

    fn fail_with(&self, batch: &mut Batch, path: &RelPath, cause: String, hint: Option<String>) {
        let hint = hint.or_else(|| hint_for(&cause));
        batch.problem(self.id, path, ProblemKind::Io, cause, hint);
    }
}

/// What no honest client sends.
fn out_of_bounds(batch: &Batch, op: &Op) -> Option<&'static str> {
    let mode_fits = |mode: &u16| mode & !MODE_MASK == 0;
    match op {
        _ if batch.incoming.is_some() => Some("an operation came within a file"),
        _ if batch.names > MAX_NAMES => Some("the names of a batch are too long together"),
        Op::File { mode, .. } | Op::Dir { mode, .. } | Op::Mode { mode, .. } if !mode_fits(mode) => {
            Some("a mode has bits that never travel")
        }
        Op::File { size, .. } if *size > MAX_FILE => Some("a file is too large"),
        Op::Symlink { target, .. } if target.is_empty() || target.len() > MAX_LINK || target.contains(&0) => {
            Some("a link's target is empty, too long or has a NUL in it")
        }
        _ => None,
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// What helps against the usual refusals of a kernel.
pub(crate) fn hint_for(cause: &str) -> Option<String> {
    let hint = if cause.contains("No space left") {
        "make room in the pod (a larger emptyDir, or fewer files with --exclude); the next save tries again"
    } else if cause.contains("quota exceeded") {
        "the volume's quota is used up: make room or raise it; the next save tries again"
    } else if cause.contains("Read-only file system") {
        "mount a writable volume over this directory, or set readOnlyRootFilesystem: false for development"
    } else {
        return None;
    };
    Some(hint.to_owned())
}
