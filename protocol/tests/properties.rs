//! Properties of the codecs: deltas make the new version, trees differ exactly where their digests do, frames
//! give back what was put in.

use devsync_protocol::chunk::{Signature, Signer};
use devsync_protocol::delta::{Applier, DeltaError, MAX_PATCH, Step, diff_content, diff_signature, whole};
use devsync_protocol::digest::Digest;
use devsync_protocol::frame::{Decoder, Encoder};
use devsync_protocol::message::{MAX_DATA, Request};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Node, Tree, root_digest};
use proptest::collection::vec;
use proptest::prelude::*;

/// One change of a version.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Vec<u8>),
    Delete(usize),
    Move { from: usize, len: usize },
    Repeat { len: usize, times: usize },
    Fill { byte: u8, len: usize },
    Flip { every: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let len = || 1usize..60_000;
    prop_oneof![
        vec(any::<u8>(), 0..3000).prop_map(Edit::Insert),
        len().prop_map(Edit::Delete),
        (any::<usize>(), len()).prop_map(|(from, len)| Edit::Move { from, len }),
        (1usize..5000, 1usize..50).prop_map(|(len, times)| Edit::Repeat { len, times }),
        (any::<u8>(), len()).prop_map(|(byte, len)| Edit::Fill { byte, len }),
        (1usize..5000).prop_map(|every| Edit::Flip { every }),
    ]
}

fn apply_edit(bytes: &mut Vec<u8>, at: usize, edit: &Edit) {
    let at = at % (bytes.len() + 1);
    let left = bytes.len() - at;
    match edit {
        Edit::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
        Edit::Delete(len) => drop(bytes.drain(at..at + left.min(*len))),
        Edit::Move { from, len } => {
            let from = from % (bytes.len() + 1);
            let len = (bytes.len() - from).min(*len);
            let cut: Vec<u8> = bytes.drain(from..from + len).collect();
            let at = at.min(bytes.len());
            bytes.splice(at..at, cut);
        }
        Edit::Repeat { len, times } => {
            let again = bytes[at..at + left.min(*len)].repeat(*times);
            bytes.splice(at..at, again);
        }
        Edit::Fill { byte, len } => bytes[at..at + left.min(*len)].fill(*byte),
        Edit::Flip { every } => bytes[at..].iter_mut().step_by(*every).for_each(|b| *b ^= 1),
    }
}

/// Bytes without repetition.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A base of noise, text or runs, and a version of it with some edits.
fn versions() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let base = (any::<u64>(), 0usize..400_000, 0u8..4).prop_map(|(seed, len, kind)| match kind {
        0 => vec![seed as u8; len],
        1 => noise(seed, 700).repeat(len / 700),
        2 => noise(seed, len).iter().map(|b| b & 3).collect(),
        _ => noise(seed, len),
    });
    (base, vec((any::<usize>(), edit()), 0..8)).prop_map(|(base, edits)| {
        let mut new = base.clone();
        edits.iter().for_each(|(at, edit)| apply_edit(&mut new, *at, edit));
        (base, new)
    })
}

fn collect(diff: impl FnOnce(&mut dyn FnMut(Step) -> Result<(), ()>) -> Result<(), ()>) -> Vec<Step> {
    let mut steps = Vec::new();
    let push = &mut |step| {
        steps.push(step);
        Ok(())
    };
    diff(push).expect("nothing stops it");
    steps
}

fn try_apply(base: &[u8], size: usize, steps: &[Step]) -> Result<Vec<u8>, DeltaError> {
    let mut applier = Applier::new(base.len() as u64, size as u64);
    let mut made = Vec::new();
    for step in steps {
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&base[at as usize..][..into.len()]);
            Ok(())
        };
        let write = |bytes: &[u8]| {
            made.extend_from_slice(bytes);
            Ok(())
        };
        applier.step(step, read, write)?;
    }
    applier.finish()?;
    Ok(made)
}

fn bounded(step: &Step) -> bool {
    match step {
        Step::Copy { len, .. } => *len > 0,
        Step::Data(data) => (1..=MAX_DATA).contains(&data.len()),
        Step::Patch { len, size, data, .. } => {
            *len <= MAX_PATCH && *size <= MAX_PATCH && data.len() <= MAX_DATA
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_recipe_makes_the_new_version((base, new) in versions()) {
        let signature = Signature::of(&base);
        prop_assert_eq!(signature.validate(), Ok(base.len() as u64));
        for steps in [
            collect(|emit| diff_content(&base, &new, emit)),
            collect(|emit| diff_signature(&signature, &new, emit)),
            collect(|emit| whole(&new, emit)),
        ] {
            prop_assert!(steps.iter().all(bounded));
            let made = try_apply(&base, new.len(), &steps);
            prop_assert!(made.as_ref().is_ok_and(|m| *m == new), "{:?}", made.map(|m| m.len()));
        }
    }

    #[test]
    fn an_unchanged_version_is_one_copy(seed: u64, len in 65_536usize..300_000) {
        let base = noise(seed, len);
        let copy = vec![Step::Copy { offset: 0, len: len as u64 }];
        prop_assert_eq!(&collect(|emit| diff_content(&base, &base, emit)), &copy);
        prop_assert_eq!(&collect(|emit| diff_signature(&Signature::of(&base), &base, emit)), &copy);
    }

    #[test]
    fn a_signature_is_the_same_in_any_pieces(seed: u64, len in 0usize..200_000, piece in 1usize..50_000) {
        let bytes = noise(seed, len);
        let mut signer = Signer::new(len as u64);
        bytes.chunks(piece).for_each(|p| signer.update(p));
        prop_assert_eq!(signer.finish(), Signature::of(&bytes));
    }

    #[test]
    fn trees_are_equal_exactly_where_their_digests_are(a in tree(), b in tree()) {
        let (da, db) = (a.dir_digests(), b.dir_digests());
        prop_assert_eq!(a == b, root_digest(&da) == root_digest(&db));
        prop_assert_eq!(a == b, da == db);
        let same = root_digest(&a.clone().dir_digests()) == root_digest(&da);
        prop_assert!(same);
    }

    #[test]
    fn frames_give_back_the_messages(
        contents in vec((any::<u8>(), 0usize..100_000, any::<bool>()), 1..12),
        level in prop::option::of(-3i32..4),
        cut in 1usize..70_000,
    ) {
        let messages: Vec<Request> = contents
            .into_iter()
            .map(|(b, len, plain)| {
                let data = if plain { vec![b; len] } else { noise(u64::from(b), len) };
                Request::Steps(vec![Step::Data(data), Step::Copy { offset: len as u64, len: u64::MAX }])
            })
            .collect();
        let (mut encoder, mut wire) = (Encoder::new(level), Vec::new());
        for message in &messages {
            encoder.push(message, &mut wire).expect("fits a frame");
        }
        encoder.flush(&mut wire).expect("fits a frame");
        let (mut decoder, mut got) = (Decoder::new(), Vec::<Request>::new());
        for piece in wire.chunks(cut) {
            decoder.feed(piece);
            while let Some(message) = decoder.next().expect("our own frames") {
                got.push(message);
            }
        }
        prop_assert!(got == messages);
        prop_assert_eq!(decoder.buffered(), 0);
    }
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (0u16..2, 0u64..2).prop_map(|(mode, n)| Node::File { mode, size: n, digest: Digest([n as u8; 32]) }),
        (0u16..2).prop_map(|mode| Node::Dir { mode }),
        "[ab]{1,2}".prop_map(|target| Node::Symlink { target: target.into_bytes() }),
    ]
}

/// Small trees with few names, so that equal ones come up.
fn tree() -> impl Strategy<Value = Tree> {
    vec(("[ab](/[ab]){0,2}", node()), 0..4).prop_map(|entries| {
        Tree(entries.into_iter().map(|(p, n)| (RelPath::new(p.into_bytes()).expect("valid"), n)).collect())
    })
}

/// Runs of equal chunks: each is looked up once and not compared with all of its like, and copies are joined.
#[test]
fn equal_chunks_make_few_steps() {
    let base = vec![7; 16 * 1024 * 1024];
    let new = [&base[..], b"tail", &base[..1_000_000]].concat();
    for steps in [
        collect(|emit| diff_content(&base, &new, emit)),
        collect(|emit| diff_signature(&Signature::of(&base), &new, emit)),
    ] {
        assert!(steps.len() < 200, "{} steps", steps.len());
        assert!(try_apply(&base, new.len(), &steps).is_ok_and(|made| made == new));
    }
}

#[test]
fn large_changes_are_encoded_by_threads_in_order() {
    let base = noise(1, 8_000_000);
    let mut new = base.clone();
    apply_edit(&mut new, 100, &Edit::Flip { every: 300 });
    let steps = collect(|emit| diff_content(&base, &new, emit));
    assert!(steps.iter().all(bounded));
    assert!(steps.iter().map(Step::wire_len).sum::<usize>() < base.len() / 5);
    assert!(try_apply(&base, new.len(), &steps).is_ok_and(|made| made == new));
}

#[test]
fn an_encoder_stops_where_its_caller_does() {
    let base = noise(1, 6_000_000);
    let mut new = base.clone();
    apply_edit(&mut new, 0, &Edit::Flip { every: 300 });
    for stop in [1, 3, 20] {
        let mut calls = 0;
        let stopped = diff_content(&base, &new, |_| {
            calls += 1;
            if calls == stop { Err("enough") } else { Ok(()) }
        });
        assert_eq!((stopped, calls), (Err("enough"), stop));
    }
}
