//! Contents that follow as steps: deltas, wrong bases, and steps that no honest client sends.

use std::fs;
use std::path::Path;

use devsync_protocol::chunk::Signature;
use devsync_protocol::delta::{Step, diff_content};
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Committed, Content, Op, ProblemKind, Request};

use crate::compare::world;
use crate::laptop::{file_op, path};
use crate::peer::{Peer, temps};
use crate::world::World;

/// Bytes without repetition.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

struct Place {
    world: World,
    state: tempfile::TempDir,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let world = world();
        let old = noise(1, 300_000);
        fs::write(world.app("big"), &old).expect("write");
        let mut new = old.clone();
        new.splice(100_000..100_010, *b"another content");
        Self { world, state: tempfile::tempdir().expect("a directory"), old, new }
    }

    fn peer(&self) -> Peer {
        let mut peer = Peer::start(self.world.pid(), self.state.path());
        peer.open("/app");
        peer
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        diff_content(&self.old, &self.new, &mut |step| {
            steps.push(step);
            Ok::<_, ()>(())
        })
        .expect("nothing stops it");
        steps
    }

    fn announce(&self, base: Option<&[u8]>, digest: Digest) -> Request {
        let content = Content::Follows { base: base.map(Digest::of) };
        let op = Op::File { path: path("big"), mode: 0o644, size: self.new.len() as u64, digest, content };
        Request::Op { root: 0, op }
    }

    /// Sends `big` by these steps, and a small file beside it.
    fn send(&self, peer: &mut Peer, base: Option<&[u8]>, digest: Digest, steps: Vec<Step>) -> Committed {
        let begin = peer.begin();
        let small = Request::Op { root: 0, op: file_op("small", 0o644, b"small") };
        let commit = peer.commit_request();
        peer.send(&[begin, self.announce(base, digest), Request::Steps(steps), small, commit]);
        peer.committed()
    }

    fn untouched(&self) {
        assert!(fs::read(self.world.app("big")).expect("read") == self.old);
        assert!(!self.world.app("small").exists());
        assert_eq!(temps(&self.world.app("")), [""; 0]);
    }
}

#[test]
#[ignore = "needs: root"]
fn a_delta_makes_the_new_version() {
    let place = Place::new();
    let mut peer = place.peer();
    let committed = place.send(&mut peer, Some(&place.old), Digest::of(&place.new), place.steps());
    assert!(committed.applied && committed.problems.is_empty(), "{committed:?}");
    assert!(fs::read(place.world.app("big")).expect("read") == place.new);
}

#[test]
#[ignore = "needs: root"]
fn a_delta_on_another_base_changes_nothing_and_is_answered_with_the_pods_signature() {
    let place = Place::new();
    let mut peer = place.peer();
    let committed = place.send(&mut peer, Some(b"another"), Digest::of(&place.new), place.steps());
    assert!(!committed.applied);
    let [problem] = &committed.problems[..] else { panic!("{committed:?}") };
    let ProblemKind::BaseMismatch { signature: Some((digest, signature)) } = &problem.kind else {
        panic!("{problem:?}")
    };
    assert_eq!((*digest, signature), (Digest::of(&place.old), &Signature::of(&place.old)));
    place.untouched();
    // The session goes on.
    let committed = place.send(&mut peer, Some(&place.old), Digest::of(&place.new), place.steps());
    assert!(committed.applied);
}

#[test]
#[ignore = "needs: root"]
fn a_delta_that_makes_something_else_changes_nothing() {
    let place = Place::new();
    let mut peer = place.peer();
    let committed = place.send(&mut peer, Some(&place.old), Digest::of(b"else"), place.steps());
    assert!(!committed.applied);
    assert!(matches!(committed.problems[0].kind, ProblemKind::BaseMismatch { signature: None }));
    place.untouched();
}

#[test]
#[ignore = "needs: root"]
fn steps_of_a_file_that_is_refused_are_dropped_and_the_session_goes_on() {
    let place = Place::new();
    let mut peer = place.peer();
    peer.batch(vec![file_op("big", 0o644, b"devsync's")]);
    fs::write(place.world.app("big"), "the app's").expect("write");
    let committed = place.send(&mut peer, None, Digest::of(&place.new), vec![Step::Data(place.new.clone())]);
    assert!(committed.applied);
    assert!(matches!(&committed.problems[..], [p] if p.kind == ProblemKind::Conflict));
    assert_eq!(fs::read(place.world.app("big")).expect("read"), b"the app's");
    assert_eq!(fs::read(place.world.app("small")).expect("read"), b"small");
    peer.settle();
}

#[test]
#[ignore = "needs: root"]
fn hostile_steps_end_the_session_and_change_nothing() {
    let place = Place::new();
    let size = place.new.len() as u64;
    let patch = |offset, len, size| Step::Patch { offset, len, size, data: vec![1, 2, 3] };
    let hostile = [
        ("beyond the size", vec![Step::Data(vec![0; place.new.len() + 1])]),
        ("beyond the size at last", vec![Step::Copy { offset: 0, len: size - 1 }, Step::Data(vec![0; 2])]),
        ("beyond the base", vec![Step::Copy { offset: 299_990, len: 11 }]),
        ("an overflow", vec![Step::Copy { offset: u64::MAX, len: 2 }]),
        ("nothing", vec![Step::Data(Vec::new())]),
        ("a patch beyond the base", vec![patch(299_990, 11, 10)]),
        ("a patch too large", vec![patch(0, u32::MAX, 10)]),
        ("a patch of rubbish", vec![patch(0, 10, 10)]),
    ];
    for (what, steps) in hostile {
        let mut peer = place.peer();
        let begin = peer.begin();
        let announce = place.announce(Some(&place.old), Digest::of(&place.new));
        peer.send(&[begin, announce, Request::Steps(steps)]);
        let refusal = peer.last_word();
        assert!(!refusal.cause.is_empty(), "{what}");
        place.untouched();
    }
}

#[test]
#[ignore = "needs: root"]
fn requests_out_of_order_end_the_session_and_take_the_batch_back() {
    let place = Place::new();
    let announce = || place.announce(Some(&place.old), Digest::of(&place.new));
    let dir = || Request::Op { root: 0, op: Op::Dir { path: path("made"), mode: 0o755 } };
    let begin = Request::Begin { batch: 1 };
    let hostile = [
        ("a commit within a file", vec![begin.clone(), dir(), announce(), Request::Commit { batch: 1 }]),
        ("an operation within a file", vec![begin.clone(), dir(), announce(), dir()]),
        ("another batch's commit", vec![begin.clone(), dir(), Request::Commit { batch: 2 }]),
        ("a batch within a batch", vec![begin.clone(), dir(), begin.clone()]),
        ("steps without a file", vec![begin.clone(), dir(), Request::Steps(Vec::new())]),
        ("an operation without a batch", vec![dir()]),
        ("an unknown root", vec![begin, Request::Op { root: 9, op: file_op("x", 0o644, b"") }]),
    ];
    for (what, requests) in hostile {
        let mut peer = place.peer();
        peer.send(&requests);
        peer.last_word();
        assert!(!place.world.app("made").exists(), "{what}");
        place.untouched();
    }
}

#[test]
#[ignore = "needs: root"]
fn a_frame_of_tiny_elements_costs_no_memory() {
    let place = Place::new();
    let mut peer = place.peer();
    peer.send(&[Request::Steps(vec![Step::Data(Vec::new()); 1_000_000])]);
    let peak = peak_at_the_end(&mut peer);
    peer.last_word();
    assert!(peak < 64 * 1024, "{peak} KiB");
    place.untouched();
}

/// Read before the agent is reaped: a zombie has no memory, so the last look at it alive counts.
fn peak_at_the_end(peer: &mut Peer) -> u64 {
    let mut peak = 0;
    let status = format!("/proc/{}/status", peer.pid());
    while Path::new(&status).exists() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
        peak = line.trim().trim_end_matches(" kB").parse().unwrap_or(peak);
    }
    peak
}
