//! What every fuzz target checks, and the valid inputs to start from.
//!
//! The libFuzzer targets call these functions; so does tests/fuzz_short.rs, on the stable toolchain.

use std::sync::LazyLock;

use devsync_protocol::chunk::Signature;
use devsync_protocol::delta::{Applier, DeltaError, Step, diff_content, diff_signature};
use devsync_protocol::frame::{Decoder, Encoder, MAX_FRAME};
use devsync_protocol::handshake;
use devsync_protocol::message::{Content, Need, NeedKind, Op, Reply, Request};
use devsync_protocol::path::{MAX_PATH, PodPath, RelPath};

/// A target's name, its check, and valid inputs for it.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

pub const TARGETS: &[Target] = &[
    ("request", request, request_corpus),
    ("reply", reply, reply_corpus),
    ("signature", signature, signature_corpus),
    ("path", path, path_corpus),
    ("handshake", handshake, handshake_corpus),
    ("apply", apply, apply_corpus),
    ("round_trip", round_trip, round_trip_corpus),
];

pub fn request(input: &[u8]) {
    messages::<Request>(input);
}

pub fn reply(input: &[u8]) {
    messages::<Reply>(input);
}

/// What decodes must encode again, and mean the same then.
fn messages<M: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(input: &[u8]) {
    let mut decoder = Decoder::new();
    // The first byte chooses where the stream is split.
    let (split, input) = input.split_first().map_or((0, input), |(s, rest)| (usize::from(*s), rest));
    for piece in [&input[..split.min(input.len())], &input[split.min(input.len())..]] {
        decoder.feed(piece);
        while let Ok(Some(message)) = decoder.next::<M>() {
            let (mut encoder, mut wire) = (Encoder::new(None), Vec::new());
            encoder
                .push(&message, &mut wire)
                .and_then(|()| encoder.flush(&mut wire))
                .expect("it came in a frame");
            assert!(wire.len() <= MAX_FRAME + 4);
            let mut again = Decoder::new();
            again.feed(&wire);
            assert!(again.next::<M>().is_ok_and(|m| m.as_ref() == Some(&message)));
        }
        assert!(decoder.buffered() <= input.len());
    }
}

/// A signature that passes serves a delta that is right or refused; no other one is used.
pub fn signature(input: &[u8]) {
    let Ok(signature) = postcard::from_bytes::<Signature>(input) else { return };
    let valid = signature.validate();
    if let Ok(total) = valid {
        assert_eq!(total, signature.total());
        assert!(total == 0 || signature.chunks.len() as u64 <= total.div_ceil(1024));
    }
    let new = input.repeat(3);
    let mut made = 0;
    let result = diff_signature(&signature, &new, |step| {
        made += step.size();
        if let Step::Copy { offset, len } = step {
            assert!(
                offset.checked_add(len).is_some_and(|end| valid.as_ref().is_ok_and(|total| end <= *total))
            );
        }
        Ok::<(), ()>(())
    });
    assert_eq!((result, made), (Ok(()), new.len() as u64));
}

/// Accepted paths have no component that leaves the root, and survive joining and splitting.
pub fn path(input: &[u8]) {
    if let Ok(path) = RelPath::new(input) {
        assert!(!input.is_empty() && input.len() <= MAX_PATH && !input.contains(&0));
        assert!(input.split(|b| *b == b'/').all(|name| !matches!(name, b"" | b"." | b"..")));
        assert!(path.parent().is_none_or(|parent| path.is_within(&parent)));
        assert!(!path.to_string().chars().any(char::is_control));
    }
    if let Ok(path) = PodPath::new(input) {
        assert!(!path.to_string().chars().any(char::is_control));
        match path.split() {
            Some((dir, name)) => assert!(dir.join(&name).is_ok_and(|p| p == path)),
            None => assert!(path.is_root()),
        }
    }
    let decoded: Result<(RelPath, PodPath), _> = postcard::from_bytes(input);
    if let Ok((rel, pod)) = decoded {
        assert!(RelPath::new(rel.as_bytes()).is_ok() && PodPath::new(pod.as_bytes()).is_ok());
    }
}

pub fn handshake(input: &[u8]) {
    let Some(hello) = input.first_chunk() else { return };
    match handshake::check(hello, "agent") {
        Ok(()) => assert_eq!(*hello, handshake::hello()),
        Err(error) => assert!(!error.to_string().chars().any(|c| c.is_control())),
    }
}

/// Any steps on a base: nothing outside the base is read, nothing beyond the size is written.
pub fn apply(input: &[u8]) {
    let Ok((base_len, size, steps)) = postcard::from_bytes::<(u32, u32, Vec<Step>)>(input) else { return };
    let base = some_base();
    if let Ok(made) = run(&base[..base.len().min(base_len as usize)], u64::from(size), &steps) {
        assert_eq!(made, u64::from(size));
    }
}

fn run(base: &[u8], size: u64, steps: &[Step]) -> Result<u64, DeltaError> {
    let mut applier = Applier::new(base.len() as u64, size);
    let mut made = 0;
    for step in steps {
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&base[at as usize..at as usize + into.len()]);
            Ok(())
        };
        applier.step(step, read, |bytes| {
            made += bytes.len() as u64;
            assert!(made <= size && bytes.len() <= MAX_FRAME);
            Ok(())
        })?;
    }
    applier.finish()?;
    Ok(made)
}

/// A base and edits made of the input: both encoders give recipes that make the new version.
pub fn round_trip(input: &[u8]) {
    let (base, new) = versions(input);
    let mut steps = Vec::new();
    for by_content in [true, false] {
        steps.clear();
        let push = |step| {
            steps.push(step);
            Ok::<(), ()>(())
        };
        let done = if by_content {
            diff_content(&base, &new, push)
        } else {
            diff_signature(&Signature::of(&base), &new, push)
        };
        assert_eq!(done, Ok(()));
        assert_eq!(made_by(&base, new.len(), &steps), new);
    }
}

fn made_by(base: &[u8], size: usize, steps: &[Step]) -> Vec<u8> {
    let mut applier = Applier::new(base.len() as u64, size as u64);
    let mut made = Vec::new();
    for step in steps {
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&base[at as usize..at as usize + into.len()]);
            Ok(())
        };
        let write = |bytes: &[u8]| {
            made.extend_from_slice(bytes);
            Ok(())
        };
        applier.step(step, read, write).expect("our own steps apply");
    }
    applier.finish().expect("complete");
    made
}

/// The input is repeated to a base of some size; then groups of four bytes edit a copy of it.
fn versions(input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (edits, text) = input.split_at(input.len() / 2);
    let mut base = Vec::new();
    for i in 0..(input.len() / 2).min(24) {
        base.extend(text.iter().map(|b| b.wrapping_mul(i as u8 | 1).wrapping_add((i / 3) as u8)));
        base.extend_from_slice(&vec![i as u8; usize::from(text[i % text.len().max(1)]) * 8]);
    }
    let mut new = base.clone();
    for edit in edits.chunks_exact(4).take(16) {
        let at = usize::from(u16::from_le_bytes([edit[1], edit[2]])) * 7 % (new.len() + 1);
        let len = (usize::from(edit[3]) * 16).min(new.len() - at);
        match edit[0] % 5 {
            0 => drop(new.splice(at..at, edits.iter().copied())),
            1 => drop(new.drain(at..at + len)),
            2 => new[at..].rotate_left(len),
            3 => new[at..at + len].fill(edit[0]),
            _ => new[at..].iter_mut().step_by(len.max(1)).for_each(|b| *b ^= edit[0]),
        }
    }
    (base, new)
}

fn framed<M: serde::Serialize>(messages: &[M]) -> Vec<Vec<u8>> {
    let frames = [None, Some(1)].map(|level| {
        let (mut encoder, mut wire) = (Encoder::new(level), vec![7]);
        messages.iter().for_each(|m| encoder.push(m, &mut wire).expect("fits"));
        encoder.flush(&mut wire).expect("fits");
        wire
    });
    frames.into()
}

fn some_path() -> RelPath {
    RelPath::new("dir/name").expect("valid")
}

fn some_base() -> &'static [u8] {
    static BASE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..20_000u32).flat_map(|i| (i * 7919 % 1009).to_le_bytes()).collect());
    &BASE
}

/// Steps of every kind, and how many bytes they make of [`some_base`].
fn some_steps() -> (usize, Vec<Step>) {
    let mut new = some_base().to_vec();
    new.splice(5000..5100, *b"some other text");
    new.iter_mut().step_by(900).for_each(|b| *b ^= 1);
    let mut steps = vec![Step::Data(b"x".to_vec()), Step::Copy { offset: 1, len: 2 }];
    let push = |step| {
        steps.push(step);
        Ok::<(), ()>(())
    };
    diff_content(some_base(), &new, push).expect("nothing stops it");
    (new.len() + 3, steps)
}

fn request_corpus() -> Vec<Vec<u8>> {
    let file = |content| Op::File {
        path: some_path(),
        mode: 0o644,
        size: 3,
        digest: devsync_protocol::digest::Digest::of(b"abc"),
        content,
    };
    framed(&[
        Request::Begin { batch: 1 },
        Request::Op { root: 0, op: file(Content::Inline(b"abc".to_vec())) },
        Request::Op { root: 0, op: file(Content::Follows { base: None }) },
        Request::Steps(some_steps().1),
        Request::Commit { batch: 1 },
        Request::Pull { root: 0, path: Some(some_path()) },
        Request::Exists { paths: vec![PodPath::new("/a/b").expect("valid")] },
        Request::Ping { nonce: 3 },
    ])
}

fn reply_corpus() -> Vec<Vec<u8>> {
    let signature = Some(Signature::of(some_base()));
    let kind = NeedKind::Differs { digest: devsync_protocol::digest::Digest::of(b"abc"), signature };
    let needs = vec![Need { path: some_path(), kind }];
    let (deletes, extras, conflicts) = (vec![some_path()], vec![], vec![]);
    framed(&[
        Reply::Compared { root: 0, differing: vec![1, 2], gone: true, last: true },
        Reply::Needs { root: 0, needs, deletes, extras, conflicts, last: true },
        Reply::PullData(b"abc".repeat(100)),
        Reply::Gone { reason: "it ended".into() },
    ])
}

fn signature_corpus() -> Vec<Vec<u8>> {
    [0, 1, 5000, 100_000]
        .map(|len| postcard::to_stdvec(&Signature::of(&vec![1; len])).expect("memory"))
        .into()
}

fn path_corpus() -> Vec<Vec<u8>> {
    let both = (some_path(), PodPath::new("/srv/app").expect("valid"));
    let mut corpus: Vec<Vec<u8>> =
        [&b"a/b/c"[..], b"/", b"/usr/bin", b"a/../b", b"\x1b[31m/\xff"].map(<[u8]>::to_vec).into();
    corpus.push(postcard::to_stdvec(&both).expect("memory"));
    corpus
}

fn handshake_corpus() -> Vec<Vec<u8>> {
    vec![handshake::hello().to_vec(), b"SSH-2.0-OpenSSH".to_vec()]
}

fn apply_corpus() -> Vec<Vec<u8>> {
    let (size, steps) = some_steps();
    assert!(run(some_base(), size as u64, &steps).is_ok());
    let small = (4u32, 3u32, vec![Step::Copy { offset: 1, len: 3 }]);
    let all = (some_base().len() as u32, size as u32, steps);
    vec![postcard::to_stdvec(&all).expect("memory"), postcard::to_stdvec(&small).expect("memory")]
}

fn round_trip_corpus() -> Vec<Vec<u8>> {
    vec![(0..=255).collect(), b"some text and edits ".repeat(30), vec![0; 64]]
}
