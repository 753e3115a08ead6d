//! One file of 4 KB is saved in a tree that is attached: until the new content is in place.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{content, sync};
use crate::bench::Bench;
use crate::bench::contestant::{Contestant, Loop};
use crate::bench::figure::Figure;
use crate::bench::watch::{Watch, loopback_bytes};

const FILE: &str = "saved.rs";
/// Enough for a 99th percentile.
const QUICK: usize = 20;

/// A loop that people use: every event starts rsync, events in between are taken together.
const RIVAL: &str = r#"inotifywait -m -q -r -e close_write,moved_to,create,delete --format x "$1" | while read -r _; do
    while read -r -t 0.001 _; do :; done
    rsync -a -e "$2" "$1" "pod:$3"
done"#;

pub(super) fn save(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let from = bench.tree.join(FILE);
    {
        let to = bench.fresh("pod/tree")?;
        fs::write(&from, page(0))?;
        let (tree, pod) = (content(&bench.tree, ""), content(&to, ""));
        let rival = Loop::start(RIVAL, &[&tree, &bench.sshd.shell(), &pod])?;
        arrive(&from, &to.join(FILE))?;
        let (times, wire) = saves(bench.runs * 2, &from, &to.join(FILE))?;
        figures.push(Figure::new("save", "inotifywait+rsync", &times, &wire));
        drop(rival);
    }
    for contestant in Contestant::both(bench, bench.app.pid())? {
        let to = bench.fresh("pod/tree")?;
        let attach = contestant.attach(&bench.work, &sync(&bench.tree, &to))?;
        arrive(&from, &to.join(FILE))?;
        let (times, wire) = saves(bench.runs * QUICK, &from, &to.join(FILE))?;
        figures.push(Figure::new("save", contestant.who, &times, &contestant.wire(wire, &attach)));
        attach.stop()?;
    }
    fs::remove_file(&from)?;
    Ok(figures)
}

/// Saves until three saves have arrived one after the other: only then everybody watches.
pub(super) fn arrive(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("a file has a directory")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !directory.exists() {
        ensure!(Instant::now() < deadline, "{} does not arrive", directory.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    let watch = Watch::new(to)?;
    let mut arrived = 0;
    for number in (0..u32::MAX).rev() {
        fs::write(from, page(number))?;
        // A save from before somebody watched brings no event: the next one will.
        arrived =
            if watch.wait_for(&page(number), Duration::from_secs(2))?.is_some() { arrived + 1 } else { 0 };
        if arrived == 3 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} does not arrive", to.display());
    }
    Ok(())
}

fn saves(count: usize, from: &Path, to: &Path) -> Result<(Vec<Duration>, Vec<u64>)> {
    let watch = Watch::new(to)?;
    let (mut times, mut wire) = (Vec::new(), Vec::new());
    for number in 0..u32::try_from(count)? {
        let wanted = page(number);
        let bytes = loopback_bytes()?;
        let begin = Instant::now();
        fs::write(from, &wanted)?;
        times.push(watch.wait(&wanted)?.duration_since(begin));
        wire.push(loopback_bytes()? - bytes);
    }
    Ok((times, wire))
}

/// 4 KB of text that no other save has. The size differs too: rsync takes a file of the same size that was saved
/// within the same second for unchanged.
fn page(number: u32) -> Vec<u8> {
    let line = format!("// save {number:>10}: a line of a source file, as long as lines are\n");
    line.bytes().cycle().take(4096 + number as usize % 61).collect()
}
