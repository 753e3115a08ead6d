//! How a connection holds its client back.
//!
//! russh opens its window when data arrive, not when they are read, and to stop its task would stop our own answers
//! too: two sides that both send a lot would wait for each other for ever. So the queues take everything, the socket
//! pauses while they are full, and the window is small meanwhile, which keeps the client's own window adjustments
//! close at hand. A pause lets a little through where only that can end it. One throttle for all channels.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// Bytes that wait for sessions before the socket pauses.
const SOFT: usize = 4 * 1024 * 1024;
/// Bytes that are never exceeded by more than a window: a client that sends this much without reading its answers
/// is not read again, and keepalive ends it.
const HARD: usize = 32 * 1024 * 1024;
/// The window while nothing waits: at 50 ms of round trip 12 MiB are 240 MB/s.
pub(super) const WINDOW: u32 = 12 * 1024 * 1024;
/// The window while the queues are full.
const NARROW: u32 = 256 * 1024;
/// A session that waits this long to write may wait for an adjustment that was not read yet.
const STUCK: Duration = Duration::from_millis(3);
/// While a session works, the answers to keepalives are let through this often.
const TRICKLE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Bytes in the queues.
    held: AtomicUsize,
    /// Sessions that wait to write.
    writing: AtomicUsize,
    /// Writes that had to wait and went through.
    progress: AtomicU64,
    paused: Mutex<Option<Waker>>,
}

impl Throttle {
    pub(super) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, SeqCst);
    }

    pub(super) fn remove(&self, bytes: usize) {
        if self.held.fetch_sub(bytes, SeqCst) >= SOFT && !self.full() {
            self.wake();
        }
    }

    pub(super) fn begin_write(&self) {
        self.writing.fetch_add(1, SeqCst);
        self.wake();
    }

    pub(super) fn end_write(&self) {
        self.progress.fetch_add(1, SeqCst);
        self.writing.fetch_sub(1, SeqCst);
    }

    /// Should the socket pause?
    pub(super) fn full(&self) -> bool {
        self.held.load(SeqCst) >= SOFT
    }

    /// How far the window is to be opened.
    pub(super) fn window(&self) -> u32 {
        if self.full() { NARROW } else { WINDOW }
    }

    /// Registers who is to be woken when the pause may be over, and says how long it lasts at most; with what
    /// `lets_through` then has to be told.
    pub(super) fn pause(&self, waker: &Waker) -> (Duration, u64) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        let limit = if self.writing.load(SeqCst) > 0 { STUCK } else { TRICKLE };
        (limit, self.progress.load(SeqCst))
    }

    /// May one read pass, after a pause that began at this progress?
    pub(super) fn lets_through(&self, progress: u64) -> bool {
        let moves = self.writing.load(SeqCst) > 0 && self.progress.load(SeqCst) != progress;
        !moves && self.held.load(SeqCst) < HARD
    }

    fn wake(&self) {
        let waker = self.paused.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_queues_pause_and_narrow_the_window() {
        let throttle = Throttle::default();
        throttle.add(SOFT);
        assert!(throttle.full() && throttle.window() == NARROW);
        throttle.remove(1);
        assert!(!throttle.full() && throttle.window() == WINDOW);
    }

    #[test]
    fn a_read_passes_only_where_writes_do_not_move() {
        let throttle = Throttle::default();
        throttle.add(SOFT);
        throttle.begin_write();
        let (limit, progress) = throttle.pause(Waker::noop());
        assert_eq!(limit, STUCK);
        assert!(throttle.lets_through(progress));
        throttle.end_write();
        throttle.begin_write();
        assert!(!throttle.lets_through(progress));
        throttle.add(HARD);
        assert!(!throttle.lets_through(throttle.pause(Waker::noop()).1));
    }
}
