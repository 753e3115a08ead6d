//! A short run of every fuzz target on the stable toolchain: valid inputs and mutations of them, from a seed.
//!
//! `FUZZ_RUNS` sets the number of inputs for each target, `FUZZ_SEED` where to start.

#[path = "fuzzing/random.rs"]
mod random;
#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

use random::{Random, number};

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    // Most of what a format decides stands in its first bytes.
    let near = if random.below(2) == 0 { 64 } else { usize::MAX };
    let at = random.below(input.len().min(near));
    match random.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.next() as u8,
        2 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        3 => input.truncate(at),
        4 => drop(input.splice(at..at, [0xff; 9])),
        5 => {
            let more: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
            input.splice(at..at, more);
        }
        6 => {
            let end = at + random.below((input.len() - at).min(64) + 1);
            input.drain(at..end);
        }
        _ => {
            let end = at + random.below((input.len() - at).min(64) + 1);
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
    }
}

fn run(name: &str, default: u64) {
    let (_, check, corpus) = targets::TARGETS.iter().find(|t| t.0 == name).expect("a target of that name");
    let corpus = corpus();
    corpus.iter().for_each(|input| check(input));
    let (runs, seed) = (number("FUZZ_RUNS", default), number("FUZZ_SEED", 1));
    for i in 0..runs {
        let mut random = Random::of(seed, i);
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut random, &mut input);
        }
        let failed = std::panic::catch_unwind(|| check(&input)).is_err();
        assert!(!failed, "target {name} fails; repeat with FUZZ_RUNS=1 FUZZ_SEED={}", seed.wrapping_add(i));
    }
}

#[test]
fn request() {
    run("request", 3000);
}

#[test]
fn reply() {
    run("reply", 3000);
}

#[test]
fn signature() {
    run("signature", 3000);
}

#[test]
fn path() {
    run("path", 20_000);
}

#[test]
fn handshake() {
    run("handshake", 20_000);
}

#[test]
fn apply() {
    run("apply", 3000);
}

#[test]
fn round_trip() {
    run("round_trip", 300);
}
