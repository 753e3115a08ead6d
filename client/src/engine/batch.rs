//! One batch: from what changed here to what the agent committed.
//!
//! A file is read in one piece or not at all; what cannot be read is left out of the batch and said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use devsync_protocol::delta::Step;
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{
    BatchId, Committed, Content, DELTA_FROM, INLINE, MAX_DATA, Op, ProblemKind, Reply, Request,
};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use indicatif::ProgressBar;
use tokio::task::block_in_place;

use super::base::Bases;
use super::delta::{Base, push_delta};
use super::root::{Root, Work};
use crate::local::read::read_within;
use crate::local::{Body, Contents, ReadError, read_stable};
use crate::session::{Answers, Call, Handle, Outgoing, SessionError};

/// A file against whose old version a delta is made is read into memory up to this size.
const DIFF_UP_TO: u64 = 1 << 30;
/// How often a batch is sent again without what could not be written.
const ATTEMPTS: usize = 5;

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) batch: Option<BatchId>,
    pub(super) files: usize,
    pub(super) deleted: usize,
    pub(super) bytes: u64,
    pub(super) paths: Vec<String>,
    pub(super) in_place: Vec<String>,
    pub(super) problems: Vec<Said>,
    /// Files that changed while they were read: to be tried again.
    pub(super) again: Vec<(usize, RelPath)>,
    /// Paths that were not applied; the next batch tries them again.
    pub(super) left_out: usize,
    /// Why the first of them was not.
    pub(super) cause: Option<String>,
    pub(super) times: Times,
}

/// Something about one path that the user is told.
#[derive(Debug)]
pub(super) enum Said {
    Conflict { path: String },
    Problem { path: String, cause: String, hint: Option<String> },
}

/// Where the time went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Times {
    pub(super) read: Duration,
    pub(super) delta: Duration,
    pub(super) wire: Duration,
    pub(super) write: Duration,
}

/// Sends batches of a session.
pub(super) struct Sender {
    pub(super) handle: Handle,
    pub(super) bases: Bases,
    last: BatchId,
    pub(super) progress: Option<ProgressBar>,
    /// Kept from the commit's request to its answer.
    unacknowledged: Option<Sent>,
}

/// What was sent and waits for its commit.
#[derive(Default)]
struct Sent {
    nodes: BTreeMap<(usize, RelPath), Node>,
    deleted: BTreeSet<(usize, RelPath)>,
    /// Contents worth a copy for the next delta.
    copies: Vec<(Digest, Vec<u8>)>,
    /// Files that could not be read, so that they are no part of it.
    unread: Vec<(usize, RelPath)>,
    files: usize,
    bytes: u64,
}

/// Why a batch cannot go on.
enum Stop {
    Session(SessionError),
    /// The file changed while it was sent.
    Torn(usize, RelPath),
}

impl From<SessionError> for Stop {
    fn from(error: SessionError) -> Self {
        Stop::Session(error)
    }
}

impl Sender {
    pub(super) fn new(handle: Handle, bases: Bases) -> Self {
        Self { handle, bases, last: 0, progress: None, unacknowledged: None }
    }

    /// What the batch held whose commit was not answered.
    pub(super) fn take_unacknowledged(&mut self) -> BTreeMap<(usize, RelPath), Node> {
        self.unacknowledged.take().unwrap_or_default().nodes
    }

    /// Sends `works` (one for each root, by position) and waits for the commit; a base that the pod does not
    /// have is made good by a second batch.
    pub(super) async fn send(
        &mut self,
        roots: &mut [Root],
        works: Vec<Work>,
    ) -> Result<Outcome, SessionError> {
        let mut outcome = Outcome::default();
        let mut works = works;
        // The second time without the base that was wrong, the third time whole.
        for _ in 0..ATTEMPTS {
            let again = self.attempt(roots, &mut works, &mut outcome).await?;
            if !again {
                break;
            }
        }
        for (root, work) in roots.iter_mut().zip(works) {
            outcome.left_out += work.changed.len() + work.deleted.len();
            work.changed.keys().for_each(|path| root.leave(path, false));
            work.deleted.iter().for_each(|path| root.leave(path, true));
        }
        Ok(outcome)
    }

    /// One batch. True where it is to be sent again with what was learned.
    async fn attempt(
        &mut self,
        roots: &mut [Root],
        works: &mut [Work],
        outcome: &mut Outcome,
    ) -> Result<bool, SessionError> {
        if works.iter().all(Work::is_empty) {
            return Ok(false);
        }
        self.last += 1;
        let batch = self.last;
        let began = Instant::now();
        let mut times = Times::default();
        let handle = self.handle.clone();
        let mut outgoing = handle.outgoing().await;
        outgoing.push(&Request::Begin { batch }).await?;
        let mut sent = Sent::default();
        let pushed = self.push_all(&mut outgoing, roots, works, &mut sent, &mut times, outcome).await;
        for (index, path) in std::mem::take(&mut sent.unread) {
            works[index].changed.remove(&path);
        }
        match pushed {
            Ok(()) if sent.nodes.is_empty() && sent.deleted.is_empty() => {
                outgoing.push(&Request::Abandon { batch }).await?;
                outgoing.flush().await?;
                return Ok(false);
            }
            Ok(()) => {}
            Err(Stop::Session(error)) => return Err(error),
            Err(Stop::Torn(root, path)) => {
                outgoing.push(&Request::Abandon { batch }).await?;
                outgoing.flush().await?;
                works[root].changed.remove(&path);
                roots[root].known.0.remove(&path);
                roots[root].leave(&path, false);
                outcome.again.push((root, path));
                return Ok(true);
            }
        }
        self.unacknowledged = Some(sent);
        let answers = outgoing.expect(Call::Commit);
        outgoing.push(&Request::Commit { batch }).await?;
        outgoing.flush().await?;
        drop(outgoing);
        let committed = committed(answers).await?;
        let sent = self.unacknowledged.take().unwrap_or_default();
        times.write = Duration::from_micros(committed.commit_us);
        times.wire = began.elapsed().saturating_sub(times.read + times.delta + times.write);
        outcome.times.read += times.read;
        outcome.times.delta += times.delta;
        outcome.times.wire += times.wire;
        outcome.times.write += times.write;
        Ok(self.settle(roots, works, sent, committed, outcome))
    }

    async fn push_all(
        &self,
        outgoing: &mut Outgoing<'_>,
        roots: &mut [Root],
        works: &[Work],
        sent: &mut Sent,
        times: &mut Times,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        for (index, (root, work)) in roots.iter_mut().zip(works).enumerate() {
            for (path, node) in &work.changed {
                if root.held.get(path) == Some(node) {
                    continue;
                }
                let name = root.to_pod(path);
                let op = match (node, root.held.get(path)) {
                    (Node::File { mode, digest, .. }, Some(Node::File { digest: held, .. }))
                        if digest == held =>
                    {
                        Op::Mode { path: name, mode: *mode }
                    }
                    (Node::Dir { mode }, Some(Node::Dir { .. })) => Op::Mode { path: name, mode: *mode },
                    (Node::Dir { mode }, _) => Op::Dir { path: name, mode: *mode },
                    (Node::Symlink { target }, _) => Op::Symlink { path: name, target: target.clone() },
                    (Node::File { .. }, _) => {
                        self.push_file(outgoing, root, index, path, sent, times, outcome).await?;
                        continue;
                    }
                };
                outgoing.push(&Request::Op { root: root.id, op }).await?;
                sent.nodes.insert((index, path.clone()), node.clone());
            }
            for path in &work.deleted {
                let op = Op::Delete { path: root.to_pod(path) };
                outgoing.push(&Request::Op { root: root.id, op }).await?;
                sent.deleted.insert((index, path.clone()));
            }
        }
        Ok(())
    }

    /// Reads a file anew and pushes it in the form that costs least.
    #[allow(clippy::too_many_arguments)]
    async fn push_file(
        &self,
        outgoing: &mut Outgoing<'_>,
        root: &mut Root,
        index: usize,
        path: &RelPath,
        sent: &mut Sent,
        times: &mut Times,
        outcome: &mut Outcome,
    ) -> Result<(), Stop> {
        let base = Base::of(&self.bases, root, path);
        let began = Instant::now();
        let abs = root.absolute(path);
        let read = block_in_place(|| match &base {
            Base::None => read_stable(&abs),
            _ => read_within(&abs, DIFF_UP_TO),
        });
        times.read += began.elapsed();
        let Contents { mode, digest, body, stamp } = match read {
            Ok(contents) => contents,
            Err(error) => {
                outcome.unread(index, root, path, error);
                sent.unread.push((index, path.clone()));
                return Ok(());
            }
        };
        let (name, size) = (root.to_pod(path), stamp.size);
        let node = Node::File { mode, size, digest };
        let file =
            |content| Request::Op { root: root.id, op: Op::File { path: name, mode, size, digest, content } };
        match body {
            Body::Bytes(bytes) => {
                let small = size < DELTA_FROM || size <= INLINE as u64 && matches!(base, Base::None);
                if small {
                    outgoing.push(&file(Content::Inline(bytes.clone()))).await?;
                } else {
                    outgoing.push(&file(Content::Follows { base: base.digest() })).await?;
                    let began = Instant::now();
                    let bytes = push_delta(outgoing, base, bytes).await?;
                    times.delta += began.elapsed();
                    if Bases::wants(size) {
                        sent.copies.push((digest, bytes));
                    }
                }
            }
            Body::File(mut large) => {
                outgoing.push(&file(Content::Follows { base: None })).await?;
                loop {
                    let mut piece = vec![0; MAX_DATA];
                    match block_in_place(|| large.next_piece(&mut piece)) {
                        Ok(0) => break,
                        Ok(len) => piece.truncate(len),
                        Err(_) => return Err(Stop::Torn(index, path.clone())),
                    }
                    self.advance(piece.len() as u64);
                    outgoing.push(&Request::Steps(vec![Step::Data(piece)])).await?;
                }
                self.advance_back(size);
            }
        }
        self.advance(size);
        sent.files += 1;
        sent.bytes += size;
        // Another version may have been read than the one that was seen first.
        root.known.0.insert(path.clone(), node.clone());
        sent.nodes.insert((index, path.clone()), node);
        Ok(())
    }

    fn advance(&self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.inc(bytes);
        }
    }

    fn advance_back(&self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.dec(bytes);
        }
    }

    /// Takes in what the agent did. True where something is to be sent again.
    fn settle(
        &self,
        roots: &mut [Root],
        works: &mut [Work],
        mut sent: Sent,
        committed: Committed,
        outcome: &mut Outcome,
    ) -> bool {
        let Committed { applied, problems, in_place, batch, .. } = committed;
        let mut mended = false;
        for problem in problems {
            let Some(index) = roots.iter().position(|r| r.id == problem.root) else { continue };
            let root = &mut roots[index];
            let path = root.to_laptop(&problem.path);
            let key = (index, path.clone());
            sent.nodes.remove(&key);
            let deleted = sent.deleted.remove(&key);
            let shown = root.shown(&path);
            match problem.kind {
                ProblemKind::BaseMismatch { signature } => {
                    // Without a signature the next attempt sends it whole.
                    root.held.remove(&path);
                    root.signatures.remove(&path);
                    if let Some((digest, signature)) = signature {
                        root.signatures.insert(path, (digest, Some(signature)));
                    }
                    mended = true;
                    continue;
                }
                ProblemKind::Conflict => {
                    root.conflicts.insert(path.clone());
                    outcome.problems.push(Said::Conflict { path: shown });
                }
                ProblemKind::Kept | ProblemKind::Io => {
                    let (cause, hint) = (problem.cause, problem.hint);
                    if problem.kind == ProblemKind::Io {
                        root.leave(&path, deleted);
                        outcome.left_out += 1;
                        outcome.cause.get_or_insert_with(|| cause.clone());
                    }
                    outcome.problems.push(Said::Problem { path: shown, cause, hint });
                }
            }
            works[index].changed.remove(&path);
            works[index].deleted.remove(&path);
        }
        if !applied {
            // The agent took the whole batch back: the rest of it goes without what cannot be written.
            return mended || works.iter().any(|w| !w.is_empty());
        }
        outcome.batch = Some(batch);
        outcome.files += sent.files.min(sent.nodes.len());
        outcome.bytes += sent.bytes;
        outcome.deleted += sent.deleted.len();
        outcome.in_place.extend(in_place.iter().map(ToString::to_string));
        for ((index, path), node) in sent.nodes {
            if outcome.paths.len() < 20 {
                outcome.paths.push(roots[index].shown(&path));
            }
            works[index].changed.remove(&path);
            roots[index].signatures.remove(&path);
            roots[index].conflicts.remove(&path);
            roots[index].held.insert(path, node);
        }
        for (index, path) in sent.deleted {
            if outcome.paths.len() < 20 {
                outcome.paths.push(roots[index].shown(&path));
            }
            works[index].deleted.remove(&path);
            roots[index].held.remove(&path);
        }
        self.keep_copies(sent.copies);
        mended && works.iter().any(|w| !w.is_empty())
    }

    /// Off the way of the save that is being made.
    fn keep_copies(&self, copies: Vec<(Digest, Vec<u8>)>) {
        if copies.is_empty() {
            return;
        }
        let bases = self.bases.clone();
        tokio::task::spawn_blocking(move || {
            for (digest, bytes) in copies {
                bases.put(&digest, &bytes);
            }
        });
    }
}

impl Outcome {
    fn unread(&mut self, index: usize, root: &mut Root, path: &RelPath, error: ReadError) {
        match error {
            // Looked at again: its delete is to follow.
            ReadError::Gone { .. } => self.again.push((index, path.clone())),
            ReadError::Changing { .. } => self.again.push((index, path.clone())),
            error => {
                let cause =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                let path_shown = root.absolute(path).display().to_string();
                self.left_out += 1;
                self.cause.get_or_insert_with(|| cause.clone());
                self.problems.push(Said::Problem { path: path_shown, cause, hint: None });
            }
        }
        // So that the next event of it is a change again.
        root.known.0.remove(path);
        root.leave(path, false);
    }
}

async fn committed(answers: Answers) -> Result<Committed, SessionError> {
    match answers.one().await? {
        Reply::Committed(committed) => Ok(*committed),
        _ => Err(SessionError::Unexpected { call: "commit", reply: "something else" }),
    }
}
