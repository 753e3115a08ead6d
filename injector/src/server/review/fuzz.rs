//! A short run of fuzzing of the decoder and the answer: whatever comes is an error or allowed, and never a panic.
//!
//! `FUZZ_RUNS` sets the number of inputs, `FUZZ_SEED` where to start.

#[path = "../../../../protocol/tests/fuzzing/random.rs"]
mod random;

use random::{Random, number};

use super::*;
use crate::security::Level;

const CORPUS: [&str; 3] = [
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"",
        "version":"v1","kind":"Pod"},"namespace":"shop","operation":"CREATE","object":{"apiVersion":"v1",
        "kind":"Pod","metadata":{"generateName":"demo-","labels":{"app":"demo"},"annotations":{
        "devsync.dev/restart":"supervise","devsync.dev/workspace":"/app"}},"spec":{"volumes":[{"name":"v",
        "emptyDir":{}}],"containers":[{"name":"app","image":"i","command":["/app/run"],"ports":[
        {"containerPort":8080}],"livenessProbe":{"httpGet":{"path":"/","port":8080}},"securityContext":{
        "runAsUser":1000,"runAsGroup":1000}}]}}}}"#,
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","subResource":"status"}}"#,
    r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":null}"#,
];
const WORDS: [&str; 24] = [
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "0",
    "-1",
    "1e999",
    "65532",
    "\"\\ud800\"",
    "\"\\u001b[2J\"",
    ",",
    ":",
    "{\"",
    "\"}",
    "[[[[[[[[",
    "\"restricted\"",
    "\"devsync-agent\"",
    "\"/\"",
    "\"..\"",
    "\"initContainers\":[{}],",
    "\"devsync.dev/original\":\"{\",",
    "\"devsync.dev/keys\":\"x\",",
    "\"hostPID\":true,",
];

/// Replaces, removes or repeats a piece; most often at the edge of a value, so that much of it is still JSON.
fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    let edges: Vec<usize> = (0..input.len()).filter(|at| b"{}[],:\"".contains(&input[*at])).collect();
    let place = |random: &mut Random| match edges.as_slice() {
        [] => random.below(input.len() + 1),
        edges if random.below(4) > 0 => edges[random.below(edges.len())] + random.below(2),
        _ => random.below(input.len() + 1),
    };
    let (a, b) = (place(random), place(random));
    let range = if random.below(2) == 0 { a..a } else { a.min(b)..a.max(b).min(a.min(b) + 40) };
    let piece = match random.below(4) {
        0 => Vec::new(),
        1 => input[range.clone()].repeat(2),
        2 => vec![(random.next() >> 32) as u8],
        _ => WORDS[random.below(WORDS.len())].as_bytes().to_vec(),
    };
    input.splice(range, piece);
}

/// Returns whether it was a review.
fn check(body: &[u8], level: Level) -> bool {
    let Ok(request) = read(body) else { return false };
    let config = Config::default();
    let answer = answer(&request, &config, &Place { level, native_sidecars: false }, Some("unsure".into()));
    assert!(answer.outcome != Outcome::Failed, "the library panicked");
    let response = &answer.body["response"];
    assert!(response["allowed"] == true && response["uid"] == request.uid, "{response}");
    let warnings = response["warnings"].as_array().map_or(&[][..], Vec::as_slice);
    assert!(warnings.iter().all(|warning| warning.as_str().is_some_and(|text| text.len() <= WARNING)));
    if let Some(patch) = response.get("patch") {
        let patch: ByteString = serde_json::from_value(patch.clone()).expect("base64");
        let operations: Vec<Value> = serde_json::from_slice(&patch.0).expect("a list of operations");
        assert!(!operations.is_empty());
    }
    true
}

#[test]
fn reviews() {
    let (runs, seed) = (number("FUZZ_RUNS", 3000), number("FUZZ_SEED", 1));
    assert!(check(CORPUS[0].as_bytes(), Level::Baseline));
    let mut understood = 0;
    for i in 0..runs {
        let mut random = Random::of(seed, i);
        let mut body = CORPUS[random.below(CORPUS.len())].as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut body);
        }
        let level = [Level::Privileged, Level::Baseline, Level::Restricted][random.below(3)];
        let done = catch_unwind(|| check(&body, level));
        let Ok(is_review) = done else {
            panic!("repeat with FUZZ_RUNS=1 FUZZ_SEED={}", seed.wrapping_add(i));
        };
        understood += u64::from(is_review);
    }
    assert!(runs < 100 || understood * 20 > runs, "only {understood} of {runs} got behind the decoder");
}
