//! Readers never see a mix, and an agent that is killed leaves old files or new ones, and nothing after the next attach.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devsync_protocol::delta::Step;
use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Content, Op, Request};

use crate::compare::world;
use crate::laptop::{file_op, path};
use crate::peer::{Peer, temps};

const VERSION: usize = 8192;

fn version(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(VERSION / 8)
}

/// Reads a file again and again until it is told to stop; gives the number of different versions that it saw.
fn read_all(file: PathBuf, stop: &AtomicBool) -> usize {
    let (mut seen, mut last) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        let bytes = fs::read(&file).expect("it is never missing");
        assert_eq!(bytes.len(), VERSION);
        assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "a mix of versions");
        if last.as_deref() != Some(&bytes[..8]) {
            seen += 1;
            last = Some(bytes[..8].to_vec());
        }
    }
    seen
}

#[test]
#[ignore = "needs: root"]
fn a_reader_sees_whole_versions_through_ten_thousand_replacements() {
    const REPLACEMENTS: u64 = 10_000;
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert!(peer.batch(vec![file_op("file", 0o644, &version(0))]).applied);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (file, stop) = (world.app("file"), Arc::clone(&stop));
        move || read_all(file, &stop)
    });
    for round in 0..REPLACEMENTS / 100 {
        let mut requests = Vec::new();
        for n in 0..100 {
            let content = version(round * 100 + n + 1);
            let op = Request::Op { root: 0, op: file_op("file", 0o644, &content) };
            requests.extend([peer.begin(), op, peer.commit_request()]);
        }
        peer.send(&requests);
        for _ in 0..100 {
            let committed = peer.committed();
            assert!(committed.applied && committed.problems.is_empty(), "{committed:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let seen = reader.join().expect("the reader");
    println!("{seen} versions seen");
    assert!(seen > 10, "{seen}");
    assert_eq!(fs::read(world.app("file")).expect("read"), version(REPLACEMENTS));
}

/// A batch of small files in several directories, one that is spilled, and a link.
fn requests(peer: &mut Peer, fill: u8) -> Vec<Request> {
    let big = vec![fill; 512 * 1024];
    let pieces = 34;
    let size = (big.len() * pieces) as u64;
    let mut hasher = devsync_protocol::digest::Hasher::new();
    (0..pieces).for_each(|_| hasher.update(&big));
    let content = Content::Follows { base: None };
    let big_op = Op::File { path: path("big"), mode: 0o644, size, digest: hasher.finish(), content };
    let op = |op| Request::Op { root: 0, op };
    let mut requests = vec![peer.begin()];
    for dir in 0..4 {
        requests.push(op(Op::Dir { path: path(format!("d{dir}")), mode: 0o755 }));
        let files = (0..30).map(|n| op(file_op(&format!("d{dir}/f{n}"), 0o644, &[fill; 5000])));
        requests.extend(files);
        let target = vec![b'a' + fill % 26];
        requests.push(op(Op::Symlink { path: path(format!("d{dir}/link")), target }));
    }
    requests.push(op(big_op));
    requests.extend((0..pieces).map(|_| Request::Steps(vec![Step::Data(big.clone())])));
    requests.push(peer.commit_request());
    requests
}

#[test]
#[ignore = "needs: root"]
fn a_killed_agent_leaves_whole_files_and_after_the_next_attach_no_temporary_ones() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let first = requests(&mut peer, 0);
    peer.send(&first);
    assert!(peer.committed().applied);
    peer.close();
    let mut left_behind = 0;
    for round in 1..=24u8 {
        let mut peer = Peer::start(world.pid(), state.path());
        peer.open("/app");
        assert_eq!(temps(&world.app("")), [""; 0], "round {round}");
        let all = requests(&mut peer, round);
        // A third dies while it receives, the others around the commit.
        let until = if round % 3 == 0 { usize::from(round) * all.len() / 30 } else { all.len() };
        peer.send(&all[..until]);
        // Not a wait for anything: the moment of death is what is tried.
        let micros = Digest::of(&[round]).0[0];
        std::thread::sleep(Duration::from_micros(u64::from(micros) * 300));
        peer.kill();
        left_behind += temps(&world.app("")).len();
        for dir in 0..4 {
            for n in 0..30 {
                let file = format!("d{dir}/f{n}");
                let bytes = fs::read(world.app(&file)).expect("it is never missing");
                assert!(
                    bytes.len() == 5000 && bytes.iter().all(|b| *b == bytes[0]),
                    "{file} in round {round}"
                );
            }
            assert!(fs::read_link(world.app(&format!("d{dir}/link"))).is_ok());
        }
        let big = fs::read(world.app("big")).expect("it is never missing");
        assert!(big.len() == 34 * 512 * 1024 && big.iter().all(|b| *b == big[0]), "big in round {round}");
    }
    println!("{left_behind} temporary files were left by killed agents");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert_eq!(temps(&world.app("")), [""; 0]);
}
