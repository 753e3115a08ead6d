//! A short run of the decoder and of the filter on mutated manifests, on the stable toolchain: nothing panics, what is
//! not changed keeps its bytes, and what comes out can be read again.
//!
//! `FUZZ_RUNS` sets the number of inputs, `FUZZ_SEED` where to start.

#[path = "../../protocol/tests/fuzzing/random.rs"]
mod random;

use devsync_injector::documents;
use devsync_injector::filter::Filter;
use random::{Random, number};

const CORPUS: [&str; 5] = [
    "# head\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  template:\n    metadata:\n      annotations:\n        \
     devsync.dev/workspace: /app\n    spec:\n      containers:\n      - name: a\n        image: i # c\n        command: [/a]\n---\nkind: X\n...\n",
    "a: &a [1, 2]\nb: *a\nc:\n  <<: {d: 1}\n  e: |\n    x\n     y\n  f: >-\n    z\n---\n- \"q\\u0041\"\n- 'it''s'\n- !!str 1\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"p\"}, \"spec\": {\"containers\": [{\"name\": \"a\", \"image\": \"i\"}]}}\n",
    "apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig:\n  spec: {level: restricted}\nitems:\n\
     - {apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a, image: i}]}}\n",
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: batch/v1\n  kind: Job\n  metadata: {name: j}\n  spec: {template: {spec: {restartPolicy: Never, containers: []}}}\n",
];
/// What YAML's scanner and the filter decide by.
const WORDS: [&str; 20] = [
    "---\n",
    "...\n",
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "#",
    "\"",
    "null",
    "devsync.dev/inject: disabled\n",
];

fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at).min(24) + 1);
    match random.below(5) {
        0 if at < input.len() => input[at] = random.next() as u8,
        1 => drop(input.drain(at..end)),
        2 => {
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        3 => input.truncate(at),
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            input.splice(at..at, word.bytes());
        }
    }
}

fn check(input: &[u8]) {
    let Ok(stream) = documents::read(input) else { return };
    assert_eq!(stream.write().as_bytes(), input, "what is not changed keeps its bytes");
    for filter in [Filter::default(), Filter { eject: true, ..Filter::default() }] {
        let Ok((_, filtered)) = filter.stream(input) else { panic!("it was read before") };
        let again = documents::read(filtered.text.as_bytes());
        assert!(again.is_ok(), "what comes out is read again: {again:?}\n{}", filtered.text);
        // An error is an answer too.
        let _ = filter.krm(input);
    }
}

#[test]
fn filter() {
    let (runs, seed) = (number("FUZZ_RUNS", 3000), number("FUZZ_SEED", 1));
    CORPUS.iter().for_each(|input| check(input.as_bytes()));
    for i in 0..runs {
        let mut random = Random::of(seed, i);
        let mut input = CORPUS[random.below(CORPUS.len())].as_bytes().to_vec();
        for _ in 0..=random.below(6) {
            mutate(&mut random, &mut input);
        }
        let failed = std::panic::catch_unwind(|| check(&input)).is_err();
        let seed = seed.wrapping_add(i);
        assert!(!failed, "repeat with FUZZ_RUNS=1 FUZZ_SEED={seed}: {:?}", String::from_utf8_lossy(&input));
    }
}
