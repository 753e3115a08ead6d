//! Staging: operations are checked against the ledger as they arrive, contents are rebuilt from their deltas and
//! verified. Small batches stay in memory until the commit; what is larger goes to temporary files at once.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use devsync_protocol::delta::{Applier, DeltaError, Step};
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::{Content, DELTA_FROM, MAX_FILE, Op, ProblemKind, RootId};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{MAX_LINK, MODE_MASK, Node};

use super::batch::{Batch, Body, Staged, StagedFile};
use super::ledger::Record;
use super::root::{Root, RootError, stamp};
use crate::target::metadata::Metadata;
use crate::target::temp::Temp;

/// A batch holds at most this many bytes of contents in memory.
const MEMORY: usize = 16 * 1024 * 1024;

/// A file whose steps are arriving.
pub(crate) struct Incoming {
    root: RootId,
    path: RelPath,
    mode: u16,
    size: u64,
    digest: Digest,
    applier: Applier,
    base: Option<File>,
    hasher: Hasher,
    sink: Sink,
}

enum Sink {
    Memory(Vec<u8>),
    Temp(Temp),
    /// The file is refused; its steps are counted and dropped.
    Nowhere {
        left: u64,
    },
}

impl Root {
    /// Checks one operation and stages it.
    pub(crate) fn stage(&mut self, batch: &mut Batch, op: Op) -> Result<(), RootError> {
        let path = op.path().clone();
        if let Some(why) = out_of_bounds(&op) {
            return Err(RootError::Protocol(why));
        }
        match self.allowed(batch, &op) {
            Ok(true) => {}
            Ok(false) => {
                drop_content(batch, self.id, &op);
                return Ok(());
            }
            Err(error) => {
                self.fail(batch, &path, &error);
                drop_content(batch, self.id, &op);
                return Ok(());
            }
        }
        if let Err(error) = self.stage_allowed(batch, op) {
            self.fail(batch, &path, &error);
        }
        Ok(())
    }

    fn stage_allowed(&mut self, batch: &mut Batch, op: Op) -> Result<(), RootError> {
        let root = self.id;
        match op {
            Op::Dir { path, mode } => self.stage_dir(batch, path, mode)?,
            Op::Symlink { path, target } => batch.staged.push(Staged::Symlink { root, path, target }),
            Op::Mode { path, mode } => batch.staged.push(Staged::Mode { root, path, mode }),
            Op::Delete { path } => batch.staged.push(Staged::Delete { root, path }),
            Op::File { path, mode, size, digest, content: Content::Inline(bytes) } => {
                if Digest::of(&bytes) != digest || bytes.len() as u64 != size {
                    return Err(RootError::Protocol("a file is not what its digest says"));
                }
                let body = self.keep(batch, &path, bytes)?;
                batch.staged.push(Staged::File(StagedFile { root, path, mode, size, digest, body }));
            }
            Op::File { path, mode, size, digest, content: Content::Follows { base } } => {
                let (base, base_len) = match base {
                    Some(base) if size > 0 => match self.open_base(batch, &path, base)? {
                        Some((file, len)) => (Some(file), len),
                        None => {
                            batch.incoming = Some(Incoming::dropped(root, path, size));
                            return Ok(());
                        }
                    },
                    _ => (None, 0),
                };
                let small = size <= (MEMORY - batch.memory.min(MEMORY)) as u64;
                let sink = match small {
                    true => Sink::Memory(Vec::with_capacity(size as usize)),
                    false => match self.temp_for(&path) {
                        Ok(temp) => Sink::Temp(temp),
                        Err(error) => {
                            self.fail(batch, &path, &error);
                            Sink::Nowhere { left: size }
                        }
                    },
                };
                let applier = Applier::new(base_len, size);
                let hasher = Hasher::new();
                let incoming = Incoming { root, path, mode, size, digest, applier, base, hasher, sink };
                batch.incoming = Some(incoming);
                self.finish_incoming(batch)?;
            }
        }
        Ok(())
    }

    /// Takes steps of the file that is arriving.
    pub(crate) fn steps(&mut self, batch: &mut Batch, steps: &[Step]) -> Result<(), RootError> {
        let incoming = batch.incoming.as_mut().ok_or(RootError::Protocol("contents came without a file"))?;
        let path = incoming.path.clone();
        if let Some(cause) = incoming.take(steps)? {
            self.fail_with(batch, &path, cause, None);
        }
        self.finish_incoming(batch)
    }

    /// Verifies and stages the file that is arriving, if it is complete.
    fn finish_incoming(&mut self, batch: &mut Batch) -> Result<(), RootError> {
        if batch.incoming.as_ref().is_none_or(|incoming| incoming.left() > 0) {
            return Ok(());
        }
        let Some(incoming) = batch.incoming.take() else { return Ok(()) };
        let Incoming { root, path, mode, size, digest, hasher, sink, .. } = incoming;
        let body = match sink {
            Sink::Nowhere { .. } => return Ok(()),
            Sink::Memory(bytes) => {
                batch.memory += bytes.len();
                Body::Memory(bytes)
            }
            Sink::Temp(temp) => Body::Temp(temp),
        };
        if hasher.finish() != digest {
            let kind = ProblemKind::BaseMismatch { signature: None };
            batch.problem(root, &path, kind, "the rebuilt file is not what its digest says", None);
            return Ok(());
        }
        batch.staged.push(Staged::File(StagedFile { root, path, mode, size, digest, body }));
        Ok(())
    }

    /// Holds a small content in memory while the batch is small, else in a temporary file.
    fn keep(&mut self, batch: &mut Batch, path: &RelPath, bytes: Vec<u8>) -> Result<Body, RootError> {
        if batch.memory + bytes.len() <= MEMORY {
            batch.memory += bytes.len();
            return Ok(Body::Memory(bytes));
        }
        Ok(Body::Temp(self.write_temp(path, &bytes)?))
    }

    /// A temporary file with `bytes`, closed.
    pub(crate) fn write_temp(&mut self, path: &RelPath, bytes: &[u8]) -> Result<Temp, RootError> {
        let mut temp = self.temp_for(path)?;
        temp.write_all(bytes).map_err(|source| RootError::Write { path: path.to_string(), source })?;
        Ok(temp)
    }

    /// A new temporary file beside `path`; where directories on its way are still missing, in the deepest that
    /// is there, which lies on the same file system.
    fn temp_for(&mut self, path: &RelPath) -> Result<Temp, RootError> {
        let mut dir = path.parent();
        let parent = loop {
            let bytes = dir.as_ref().map_or(&[][..], |d| d.as_bytes());
            match self.directory(bytes) {
                Err(e)
                    if dir.is_some()
                        && (e.is_not_found() || e.errno() == Some(nix::errno::Errno::ENOTDIR)) =>
                {
                    dir = dir.and_then(|d| d.parent());
                }
                opened => break opened?.clone(),
            }
        };
        let noted = self.marks.note(dir.as_ref().map_or(&[], |d| d.as_bytes()));
        noted.map_err(|source| RootError::Marks { source })?;
        Ok(parent.create_temp()?)
    }

    /// Makes a directory that is missing at once, since nothing is replaced by it; the rest waits for the commit.
    fn stage_dir(&mut self, batch: &mut Batch, path: RelPath, mode: u16) -> Result<(), RootError> {
        let root = self.id;
        if self.look(&path)?.is_some() {
            batch.staged.push(Staged::Dir { root, path, mode });
            return Ok(());
        }
        let (parent, leaf) = self.parent(&path)?;
        match parent.mkdir(leaf, mode.into()) {
            Ok(()) => {
                self.record_now(&path, Node::Dir { mode }, true)?;
                batch.made.push((root, path));
            }
            // Its own parent is still to replace a file.
            Err(e) if matches!(e.errno(), Some(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR)) => {
                batch.staged.push(Staged::Dir { root, path, mode });
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Puts what now lies at `path` into the ledger.
    pub(crate) fn record_now(&mut self, path: &RelPath, node: Node, ours: bool) -> Result<(), RootError> {
        if let Some(metadata) = self.look(path)? {
            self.ledger.put(path.clone(), Record { node, stamp: stamp(&metadata), ours });
        }
        Ok(())
    }

    /// False where the pod's file is to be kept: it changed since devsync wrote it, or is not devsync's to delete.
    fn allowed(&mut self, batch: &mut Batch, op: &Op) -> Result<bool, RootError> {
        let path = op.path();
        let record = self.ledger.get(path).cloned();
        let Some(metadata) = self.look(path)? else { return Ok(true) };
        let deletes = matches!(op, Op::Delete { .. });
        if deletes && !record.as_ref().is_some_and(|r| r.ours) && !self.options.delete {
            let hint = Some("with --delete, files that devsync did not write are deleted too".to_owned());
            batch.problem(self.id, path, ProblemKind::Kept, "devsync did not write it", hint);
            return Ok(false);
        }
        let Some(record) = record.filter(|r| r.ours && !self.options.overwrite) else { return Ok(true) };
        if metadata.is_directory() || stamp(&metadata) == record.stamp {
            return Ok(true);
        }
        let actual = self.read_node(path, &metadata)?;
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
            return Ok(true);
        }
        let hint = "look at it with `devsync pull`, then attach with --overwrite, or delete it in the pod";
        let cause = "it changed in the pod since devsync wrote it, and was kept";
        batch.problem(self.id, path, ProblemKind::Conflict, cause, Some(hint.to_owned()));
        Ok(false)
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
        let hint = match error {
            RootError::Target(error) => error.hint(),
            _ => None,
        };
        self.fail_with(batch, path, chain(error), hint);
    }

    fn fail_with(&self, batch: &mut Batch, path: &RelPath, cause: String, hint: Option<String>) {
        let hint = hint.or_else(|| hint_for(&cause));
        batch.problem(self.id, path, ProblemKind::Io, cause, hint);
    }
}

impl Incoming {
    /// A file that is refused but whose steps still come.
    fn dropped(root: RootId, path: RelPath, size: u64) -> Self {
        let applier = Applier::new(0, 0);
        let (digest, hasher) = (Digest::of(b""), Hasher::new());
        let sink = Sink::Nowhere { left: size };
        Self { root, path, mode: 0, size, digest, applier, base: None, hasher, sink }
    }

    pub(crate) fn root(&self) -> RootId {
        self.root
    }

    fn left(&self) -> u64 {
        match &self.sink {
            Sink::Nowhere { left } => *left,
            _ => self.applier.remaining(),
        }
    }

    /// Applies steps; gives the cause where the kernel refused, after which the rest is counted and dropped.
    fn take(&mut self, steps: &[Step]) -> Result<Option<String>, RootError> {
        let mut failure = None;
        for step in steps {
            if let Sink::Nowhere { left } = &mut self.sink {
                let rest = left.checked_sub(step.size()).filter(|_| step.size() > 0);
                *left = rest.ok_or(RootError::Protocol("a file is longer than announced"))?;
                continue;
            }
            match self.apply(step) {
                Ok(()) => {}
                Err(error @ (DeltaError::Write(_) | DeltaError::ReadBase { .. })) => {
                    failure = Some(chain(&error));
                    self.sink = Sink::Nowhere { left: self.left() - step.size() };
                }
                Err(error) => return Err(RootError::Delta(error)),
            }
        }
        Ok(failure)
    }

    fn apply(&mut self, step: &Step) -> Result<(), DeltaError> {
        let Self { applier, base, hasher, sink, .. } = self;
        let read = |offset, buffer: &mut [u8]| match &base {
            Some(file) => file.read_exact_at(buffer, offset),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        let write = |bytes: &[u8]| {
            hasher.update(bytes);
            match sink {
                Sink::Memory(memory) => memory.extend_from_slice(bytes),
                Sink::Temp(temp) => temp.write_all(bytes)?,
                Sink::Nowhere { .. } => {}
            }
            Ok(())
        };
        applier.step(step, read, write)
    }
}

/// The content of a refused operation is still on its way, and is dropped when it comes.
fn drop_content(batch: &mut Batch, root: RootId, op: &Op) {
    if let Op::File { path, size, content: Content::Follows { .. }, .. } = op
        && *size > 0
    {
        batch.incoming = Some(Incoming::dropped(root, path.clone(), *size));
    }
}

/// What no honest client sends.
fn out_of_bounds(op: &Op) -> Option<&'static str> {
    let mode_fits = |mode: &u16| mode & !MODE_MASK == 0;
    match op {
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
