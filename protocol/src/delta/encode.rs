//! Encodes a recipe: copies, patches and data, handed to the caller one by one as they are made.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::Step;
use super::patch::Patcher;
use super::plan::{Part, plan};
use crate::chunk::{Chunk, Cuts, Signature};
use crate::message::MAX_DATA;

/// Shorter ranges go as they are: a patch has about 30 bytes of its own.
const PATCH_FROM: usize = 96;
/// Below this many bytes to patch, threads cost more than they save.
const THREADS_FROM: usize = 8 * super::plan::SEGMENT;
const THREADS_MAX: usize = 4;
/// Patches that a thread may be ahead of the caller.
const AHEAD: usize = 4;

/// The recipe that makes `new` of a base of which only the chunks are known: copies and data. A signature that
/// [`Signature::validate`] refuses finds nothing, so everything is data. Stops at the first error of `emit`.
pub fn diff_signature<E>(
    base: &Signature,
    new: &[u8],
    mut emit: impl FnMut(Step) -> Result<(), E>,
) -> Result<(), E> {
    let Ok(total) = base.validate() else { return whole(new, emit) };
    let known = Known::new(base);
    let (mut at, mut plain) = (0, 0);
    let mut copy = Copied::default();
    for piece in Cuts::for_len(total).pieces(new) {
        match known.find(Chunk::of(piece), copy.next) {
            Some(found) => {
                whole(&new[plain..at], &mut emit)?;
                plain = at + piece.len();
                if found != copy.next {
                    copy.emit(&known, &mut emit)?;
                    copy = Copied { first: found, next: found };
                }
                copy.next += 1;
            }
            None => {
                copy.emit(&known, &mut emit)?;
                copy = Copied::default();
                if at - plain >= MAX_DATA {
                    whole(&new[plain..at], &mut emit)?;
                    plain = at;
                }
            }
        }
        at += piece.len();
    }
    copy.emit(&known, &mut emit)?;
    whole(&new[plain..], emit)
}

/// The chunks of a base.
struct Known<'a> {
    chunks: &'a [Chunk],
    /// Where each begins, and the end.
    offsets: Vec<u64>,
    /// The first chunk of that content.
    first: HashMap<Chunk, usize>,
}

impl<'a> Known<'a> {
    fn new(base: &'a Signature) -> Self {
        let mut known = Self { chunks: &base.chunks, offsets: vec![0], first: HashMap::new() };
        let mut end = 0;
        for (i, chunk) in base.chunks.iter().enumerate() {
            known.first.entry(*chunk).or_insert(i);
            end += u64::from(chunk.len);
            known.offsets.push(end);
        }
        known
    }

    /// A chunk that equals `chunk`: number `likely` if that does, so that copies of runs are joined.
    fn find(&self, chunk: Chunk, likely: usize) -> Option<usize> {
        if self.chunks.get(likely) == Some(&chunk) { Some(likely) } else { self.first.get(&chunk).copied() }
    }
}

/// A run of the base's chunks, by their numbers, that is to be copied; nothing where `next` is `first`.
#[derive(Default)]
struct Copied {
    first: usize,
    next: usize,
}

impl Copied {
    fn emit<E>(&self, known: &Known, emit: &mut impl FnMut(Step) -> Result<(), E>) -> Result<(), E> {
        if self.first == self.next {
            return Ok(());
        }
        let (offset, end) = (known.offsets[self.first], known.offsets[self.next]);
        emit(Step::Copy { offset, len: end - offset })
    }
}

/// The recipe that makes `new` without a base.
pub fn whole<E>(new: &[u8], mut emit: impl FnMut(Step) -> Result<(), E>) -> Result<(), E> {
    new.chunks(MAX_DATA).try_for_each(|data| emit(Step::Data(data.to_vec())))
}

/// The recipe that makes `new` of a base that is at hand: copies of what is equal, patches of what is like it.
/// Stops at the first error of `emit`, which is called on this thread; others may compress ahead.
pub fn diff_content<E>(
    base: &[u8],
    new: &[u8],
    mut emit: impl FnMut(Step) -> Result<(), E>,
) -> Result<(), E> {
    let parts = plan(base, new);
    let work: usize = parts.iter().map(|p| if let Part::Like { new, .. } = p { new.len() } else { 0 }).sum();
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    if threads == 1 || work < THREADS_FROM {
        let mut patcher = Patcher::new();
        return parts.iter().try_for_each(|part| emit(step(&mut patcher, base, new, part)));
    }
    thread::scope(|scope| {
        let queues: Vec<_> = (0..threads)
            .map(|worker| {
                let (sender, receiver) = sync_channel(AHEAD);
                let parts = &parts;
                scope.spawn(move || encode_each(base, new, parts, worker, threads, &sender));
                receiver
            })
            .collect();
        collect(base, new, &parts, &queues, emit)
    })
}

/// A worker: encodes every `threads`th patch, until the caller wants no more.
fn encode_each(
    base: &[u8],
    new: &[u8],
    parts: &[Part],
    worker: usize,
    threads: usize,
    out: &SyncSender<Step>,
) {
    let mut patcher = Patcher::new();
    let patches = parts.iter().filter(|p| matches!(p, Part::Like { .. }));
    for part in patches.skip(worker).step_by(threads) {
        if out.send(step(&mut patcher, base, new, part)).is_err() {
            return;
        }
    }
}

/// Emits copies and the workers' patches in the order of `parts`.
fn collect<E>(
    base: &[u8],
    new: &[u8],
    parts: &[Part],
    queues: &[Receiver<Step>],
    mut emit: impl FnMut(Step) -> Result<(), E>,
) -> Result<(), E> {
    let mut patcher = Patcher::new();
    let mut turn = queues.iter().cycle();
    for part in parts {
        let ready = match part {
            Part::Copy { .. } => None,
            Part::Like { .. } => turn.next().and_then(|queue| queue.recv().ok()),
        };
        emit(ready.unwrap_or_else(|| step(&mut patcher, base, new, part)))?;
    }
    Ok(())
}

/// The step that makes one part.
fn step<'b>(patcher: &mut Patcher<'b>, base: &'b [u8], new: &[u8], part: &Part) -> Step {
    match part {
        Part::Copy { base } => Step::Copy { offset: base.start as u64, len: base.len() as u64 },
        Part::Like { new: range, base: like } => {
            let wanted = &new[range.clone()];
            if wanted.len() >= PATCH_FROM && !like.is_empty() {
                let saves = wanted.len() - wanted.len() / 16;
                if let Some(data) =
                    patcher.patch(&base[like.clone()], wanted).filter(|p| p.len() + 20 < saves)
                {
                    let (len, size) = (like.len() as u32, wanted.len() as u32);
                    return Step::Patch { offset: like.start as u64, len, size, data: data.to_vec() };
                }
            }
            Step::Data(wanted.to_vec())
        }
    }
}
