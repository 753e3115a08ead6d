//! Where a new version's bytes come from: equal ranges of the base, and for what lies between them the range of
//! the base that is most like it. Finds, but emits nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;

use fastcdc::v2020::{Chunk, FastCDC};

/// Chunks by which equal ranges are found; finer than a signature's, since they are never sent.
const AVERAGE: usize = 2048;
/// An equal range of at least this length is a copy of its own; a shorter one is left to its patch.
const COPY_FROM: usize = 16 * 1024;
/// An equal range that lies this much off its neighbours' course is a copy from [`MOVED_FROM`] on.
const FAR: usize = 256 * 1024;
const MOVED_FROM: usize = 1024;
/// Most bytes of the new version in one patch. Small enough for a core's cache and to be sent early.
pub(super) const SEGMENT: usize = 128 * 1024;
/// How far beyond the expected range a patch may look in the base, at most.
const SLACK: usize = 16 * 1024;
/// Most bytes of the base behind one patch.
const MAX_PREFIX: usize = 512 * 1024;

/// A base of at least this length is cut by two threads.
const THREADS_FROM: usize = 4 * 1024 * 1024;

/// One part of the new version; all parts in order make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Equal to that range of the base.
    Copy { base: Range<usize> },
    /// That range of the new version, like that range of the base (empty where nothing is).
    Like { new: Range<usize>, base: Range<usize> },
}

/// An equal range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    new: usize,
    base: usize,
    len: usize,
}

impl Match {
    /// Where in the base `at` of the new version would lie on this match's course.
    fn course(&self, at: usize) -> usize {
        (self.base + at).saturating_sub(self.new)
    }
}

/// Splits `new` into parts.
pub(super) fn plan(base: &[u8], new: &[u8]) -> Vec<Part> {
    let matches = matches(base, new);
    let mut parts = Vec::new();
    let mut before = Match { new: 0, base: 0, len: 0 };
    let mut inside = Vec::new();
    let end = Match { new: new.len(), base: base.len(), len: 0 };
    for m in matches.into_iter().chain([end]) {
        let off = m.base.abs_diff(before.course(m.new));
        let copied = m.len >= COPY_FROM || m.len >= MOVED_FROM && off > FAR;
        if !copied && m != end {
            inside.push(m);
            continue;
        }
        segments(base.len(), before, &inside, m, &mut parts);
        if m.len > 0 {
            parts.push(Part::Copy { base: m.base..m.base + m.len });
            before = m;
        }
        inside.clear();
    }
    parts
}

/// Cuts what lies between two copies into segments, each with the range of the base that it resembles.
fn segments(base_len: usize, before: Match, inside: &[Match], after: Match, parts: &mut Vec<Part>) {
    let (start, end) = (before.new + before.len, after.new);
    let count = (end - start).div_ceil(SEGMENT);
    let mut inside = inside.iter().peekable();
    let mut last = before;
    for i in 0..count {
        let from = start + (end - start) * i / count;
        let to = start + (end - start) * (i + 1) / count;
        let slack = ((to - from) / 2).clamp(512, SLACK);
        let mut like = around(last.course(from), last.course(to), slack, base_len);
        while let Some(m) = inside.next_if(|m| m.new < to) {
            widen(&mut like, around(m.base, m.base + m.len, slack, base_len));
            last = *m;
        }
        if i + 1 == count {
            widen(&mut like, around(after.course(from), after.base, slack, base_len));
        }
        parts.push(Part::Like { new: from..to, base: like });
    }
}

fn around(from: usize, to: usize, slack: usize, base_len: usize) -> Range<usize> {
    let end = (to + slack).min(base_len);
    from.saturating_sub(slack).min(end)..end
}

/// Widens `range` to hold `more` too, unless that makes it too long.
fn widen(range: &mut Range<usize>, more: Range<usize>) {
    let wide = range.start.min(more.start)..range.end.max(more.end);
    if wide.len() <= MAX_PREFIX {
        *range = wide;
    }
}

/// Equal ranges in the order of `new`, none overlapping there. Time is linear whatever the bytes are: each chunk
/// has at most two candidates.
fn matches(base: &[u8], new: &[u8]) -> Vec<Match> {
    let head = common_prefix(base, new);
    let tail = common_suffix(&base[head..], &new[head..]);
    let (base_end, new_end) = (base.len() - tail, new.len() - tail);
    let mut found = Vec::new();
    if head > 0 {
        found.push(Match { new: 0, base: 0, len: head });
    }
    if head < base_end && head < new_end {
        Search::new(&base[..base_end], head).run(&new[..new_end], head, &mut found);
    }
    if tail > 0 {
        found.push(Match { new: new_end, base: base_end, len: tail });
    }
    found
}

struct Search<'a> {
    base: &'a [u8],
    /// Where the base is cut, in order.
    cuts: Vec<usize>,
    /// The first chunk with that fingerprint.
    chunks: HashMap<(u64, usize), usize>,
}

impl<'a> Search<'a> {
    fn new(base: &'a [u8], from: usize) -> Self {
        let chunks = cut_all(&base[from..]);
        let mut search = Self {
            base,
            cuts: Vec::with_capacity(chunks.len()),
            chunks: HashMap::with_capacity(chunks.len()),
        };
        for c in chunks {
            search.cuts.push(from + c.offset);
            search.chunks.entry((c.hash, c.length)).or_insert(from + c.offset);
        }
        search
    }

    fn run(&self, new: &[u8], from: usize, found: &mut Vec<Match>) {
        let cutter = cutter(new);
        // `done` is matched already; the cutter may stand before it, to stay in step with the base's cuts.
        let (mut at, mut done) = (from, from);
        while at < new.len() {
            let (hash, end) = cutter.cut(at, new.len() - at);
            let course = found.last().map(|m| m.course(at));
            let known = self.chunks.get(&(hash, end - at)).copied();
            let hit = [course, known]
                .into_iter()
                .flatten()
                .find(|&b| self.base.get(b..b + end - at) == new.get(at..end));
            let Some(base) = hit else {
                at = end;
                continue;
            };
            let m = self.extend(new, base, at, end - at, done);
            done = m.new + m.len;
            at = done - self.past_cut(m.base + m.len, done - end);
            match found.last_mut() {
                Some(last) if last.new + last.len == m.new && last.base + last.len == m.base => {
                    last.len += m.len
                }
                _ if m.len > 0 => found.push(m),
                _ => {}
            }
        }
    }

    /// The equal chunk at `base` and `at`, as far as it goes on both sides without passing `done`.
    fn extend(&self, new: &[u8], base: usize, at: usize, len: usize, done: usize) -> Match {
        let (start, base_start) = (at.max(done), base + at.max(done) - at);
        let back = common_suffix(&self.base[..base_start], &new[done..start]);
        let on = common_prefix(&self.base[base + len..], &new[at + len..]);
        Match { new: start - back, base: base_start - back, len: at + len + on - start + back }
    }

    /// Bytes from the base's last cut before `end` to `end`, at most `most`.
    fn past_cut(&self, end: usize, most: usize) -> usize {
        let cut = self.cuts[..self.cuts.partition_point(|&c| c <= end)].last().copied().unwrap_or(end);
        if end - cut <= most { end - cut } else { 0 }
    }
}

/// All chunks of `bytes`; a long one is cut by two threads, whose halves meet in one odd chunk.
fn cut_all(bytes: &[u8]) -> Vec<Chunk> {
    if bytes.len() < THREADS_FROM {
        return cutter(bytes).collect();
    }
    let middle = bytes.len() / 2;
    thread::scope(|scope| {
        let second = scope.spawn(|| cutter(&bytes[middle..]).collect::<Vec<_>>());
        let mut chunks: Vec<_> = cutter(&bytes[..middle]).collect();
        // A thread that failed costs matches, nothing else.
        let second = second.join().unwrap_or_default();
        chunks.extend(second.into_iter().map(|c| Chunk { offset: c.offset + middle, ..c }));
        chunks
    })
}

fn cutter(bytes: &[u8]) -> FastCDC<'_> {
    FastCDC::new(bytes, AVERAGE / 4, AVERAGE, AVERAGE * 4)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len());
    let mut at = 0;
    // Slices compare by memcmp; the last piece is looked at closer.
    for piece in [64 * 1024, 1024, 64, 1] {
        while at + piece <= most && a[at..at + piece] == b[at..at + piece] {
            at += piece;
        }
    }
    at
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let most = a.len().min(b.len());
    let (a, b) = (&a[a.len() - most..], &b[b.len() - most..]);
    let mut left = most;
    for piece in [64 * 1024, 1024, 64, 1] {
        while left >= piece && a[left - piece..left] == b[left - piece..left] {
            left -= piece;
        }
    }
    most - left
}
