//! The batcher over an invented clock.

use super::*;

fn path(p: impl AsRef<str>) -> RelPath {
    RelPath::new(p.as_ref()).expect("valid")
}

struct Bench {
    start: Instant,
    batcher: Batcher,
}

impl Bench {
    fn new() -> Self {
        Self { start: Instant::now(), batcher: Batcher::new(Timing::default()) }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn take(&mut self, ms: u64) -> Vec<String> {
        let now = self.at(ms);
        let batch = self.batcher.take(now);
        batch.map(|b| b.paths.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    fn deadline(&self) -> Option<u64> {
        self.batcher.deadline().map(|d| d.saturating_duration_since(self.start).as_millis() as u64)
    }
}

#[test]
fn a_save_in_place_goes_with_its_close() {
    let mut b = Bench::new();
    b.batcher.writing(b.at(0), path("a"));
    assert_eq!(b.take(0), [""; 0]);
    assert_eq!(b.deadline(), Some(20));
    b.batcher.closed(b.at(1), path("a"));
    assert_eq!(b.take(1), ["a"]);
    assert_eq!(b.deadline(), None);
}

#[test]
fn a_save_by_rename_goes_at_once_and_without_its_temporary_file() {
    let mut b = Bench::new();
    b.batcher.created(b.at(0), path("a.tmp"), false);
    b.batcher.closed(b.at(1), path("a.tmp"));
    assert_eq!(b.take(1), [""; 0]);
    assert!(b.batcher.gone(b.at(1), path("a.tmp")));
    b.batcher.moved_to(b.at(1), path("a"), false);
    assert_eq!(b.take(1), ["a"]);
    assert_eq!(b.take(21), ["a.tmp"]);
}

#[test]
fn vims_backup_dance_never_shows_the_file_as_gone() {
    let mut b = Bench::new();
    assert!(!b.batcher.gone(b.at(0), path("a")));
    b.batcher.moved_to(b.at(0), path("a~"), true);
    assert_eq!(b.take(0), [""; 0]);
    b.batcher.created(b.at(1), path("a"), false);
    assert_eq!(b.take(1), [""; 0]);
    b.batcher.writing(b.at(2), path("a"));
    b.batcher.closed(b.at(3), path("a"));
    assert_eq!(b.take(3), ["a"]);
    b.batcher.gone(b.at(4), path("a~"));
    assert_eq!(b.take(23), [""; 0]);
    assert_eq!(b.take(24), ["a~"]);
}

#[test]
fn what_follows_the_first_save_is_gathered_until_it_is_quiet() {
    let mut b = Bench::new();
    b.batcher.closed(b.at(0), path("f0"));
    assert_eq!(b.take(0), ["f0"]);
    for i in 1..5 {
        b.batcher.closed(b.at(i * 10), path(format!("f{i}")));
        assert_eq!(b.take(i * 10), [""; 0]);
    }
    assert_eq!(b.deadline(), Some(60));
    assert_eq!(b.take(60), ["f1", "f2", "f3", "f4"]);
    b.batcher.closed(b.at(81), path("f9"));
    assert_eq!(b.take(81), ["f9"]);
}

#[test]
fn a_stream_of_changes_is_handed_on_every_second() {
    let mut b = Bench::new();
    let mut batches = 0;
    for ms in (0..3_000).step_by(10) {
        b.batcher.closed(b.at(ms), path(format!("f{ms}")));
        batches += usize::from(!b.take(ms).is_empty());
    }
    assert_eq!(batches, 3);
}

#[test]
fn a_file_that_never_closes_is_handed_on_every_second() {
    let mut b = Bench::new();
    let mut taken = Vec::new();
    for ms in (0..2_500).step_by(10) {
        b.batcher.writing(b.at(ms), path("log"));
        if !b.take(ms).is_empty() {
            taken.push(ms);
        }
    }
    assert_eq!(taken, [1_000, 2_010]);
}

#[test]
fn git_holds_everything_until_its_lock_is_gone_and_it_is_quiet() {
    let mut b = Bench::new();
    b.batcher.set_lock(b.at(0), true);
    for i in 0..10 {
        b.batcher.closed(b.at(i * 100), path(format!("f{i}")));
        assert_eq!(b.take(i * 100 + 99), [""; 0]);
    }
    b.batcher.set_lock(b.at(2_000), false);
    assert_eq!(b.take(2_000), [""; 0]);
    b.batcher.set_lock(b.at(2_010), true);
    assert_eq!(b.take(2_100), [""; 0]);
    b.batcher.set_lock(b.at(2_200), false);
    assert_eq!(b.take(2_219), [""; 0]);
    assert_eq!(b.take(2_220).len(), 10);
}

#[test]
fn a_stale_lock_is_respected_for_ten_seconds_of_waiting_only() {
    let mut b = Bench::new();
    b.batcher.set_lock(b.at(0), true);
    assert_eq!(b.deadline(), None);
    b.batcher.closed(b.at(50_000), path("a"));
    assert_eq!(b.deadline(), Some(60_000));
    let now = b.at(60_000);
    let batch = b.batcher.take(now).expect("released");
    assert!(batch.lock_ignored);
    b.batcher.set_lock(now, true);
    b.batcher.closed(b.at(61_000), path("a"));
    let now = b.at(61_000);
    assert!(!b.batcher.take(now).expect("not held again").lock_ignored);
}

#[test]
fn a_burst_becomes_a_rescan_of_its_directories() {
    let mut b = Bench::new();
    for i in 0..600 {
        b.batcher.closed(b.at(0), path(format!("d{}/sub/f{i}", i % 2)));
        b.batcher.closed(b.at(0), path(format!("d{}/f{i}", i % 2)));
    }
    assert_eq!(b.batcher.take(b.at(49)), None);
    let now = b.at(50);
    let batch = b.batcher.take(now).expect("quiet");
    assert_eq!(batch.rescan, Some(Rescan::Dirs([path("d0"), path("d1")].into())));
    assert!(batch.paths.is_empty());
}

#[test]
fn a_rescan_of_everything_waits_for_quiet() {
    let mut b = Bench::new();
    b.batcher.rescan(b.at(0), None);
    assert_eq!(b.deadline(), Some(20));
    let now = b.at(20);
    assert_eq!(b.batcher.take(now).and_then(|b| b.rescan), Some(Rescan::Everything));
    assert_eq!(b.deadline(), None);
}

#[test]
fn nothing_pending_means_no_timer() {
    let b = Bench::new();
    assert_eq!(b.deadline(), None);
}
