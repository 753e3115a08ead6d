//! Whose file it is: what changed in the pod is kept, what devsync did not write is not deleted.

use std::fs;

use devsync_protocol::message::{Op, ProblemKind, Request, RootOptions};

use crate::compare::{own_app, world};
use crate::laptop::{Laptop, file_op, path};
use crate::peer::{Peer, temps};
use crate::world::{As, World};

fn old() -> Laptop {
    Laptop::default()
        .file("a", 0o644, b"old a")
        .file("b", 0o644, b"old b")
        .dir("d")
        .file("d/c", 0o644, b"old c")
}

#[test]
#[ignore = "needs: root"]
fn what_changed_in_the_pod_is_kept_and_the_rest_applied() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    old().sync(&mut peer).clean();
    fs::write(world.app("a"), "the app's").expect("write");
    let committed = peer.batch(vec![file_op("a", 0o644, b"new a"), file_op("b", 0o644, b"new b")]);
    assert!(committed.applied);
    assert!(matches!(&committed.problems[..], [p] if p.kind == ProblemKind::Conflict && p.path == path("a")));
    assert!(committed.problems[0].hint.as_ref().is_some_and(|hint| hint.contains("--overwrite")));
    assert_eq!(fs::read(world.app("a")).expect("read"), b"the app's");
    assert_eq!(fs::read(world.app("b")).expect("read"), b"new b");
    // A comparison names it before anything is sent; so does a delete.
    let new = old().file("a", 0o644, b"new a").file("b", 0o644, b"new b");
    assert_eq!(new.sync(&mut peer).conflicts, ["a"]);
    assert_eq!(new.clone().without("a").sync(&mut peer).conflicts, ["a"]);
    peer.close();
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open_with("/app", RootOptions { overwrite: true, ..RootOptions::default() });
    new.sync(&mut peer).clean();
    assert_eq!(fs::read(world.app("a")).expect("read"), b"new a");
}

/// Its directory is no longer there on the laptop, so nobody has said that it is the same.
#[test]
#[ignore = "needs: root"]
fn what_changed_in_a_directory_that_is_gone_here_is_kept() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    old().sync(&mut peer).clean();
    fs::write(world.app("d/c"), "the app's").expect("write");
    let gone = old().without("d");
    for _ in 0..2 {
        assert_eq!(gone.sync(&mut peer).conflicts, ["d/c"]);
        peer.close();
        peer = Peer::start(world.pid(), state.path());
        peer.open("/app");
    }
    assert_eq!(fs::read(world.app("d/c")).expect("read"), b"the app's");
}

/// As after a sync through another agent, with another ledger.
#[test]
#[ignore = "needs: root"]
fn what_both_sides_have_is_the_base_whoever_wrote_it() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    old().sync(&mut peer).clean();
    for name in ["a", "d/c"] {
        fs::write(world.app(name), "another's").expect("write");
    }
    let same = old().file("a", 0o644, b"another's").file("d/c", 0o644, b"another's");
    assert!(same.sync(&mut peer).is_equal());
    let new = || vec![file_op("a", 0o644, b"new a"), file_op("d/c", 0o644, b"new c")];
    let committed = peer.batch(new());
    assert!(committed.applied && committed.problems.is_empty(), "{committed:?}");
    assert_eq!(fs::read(world.app("d/c")).expect("read"), b"new c");
    // What the app writes later is still its own.
    assert!(old().file("a", 0o644, b"new a").file("d/c", 0o644, b"new c").sync(&mut peer).is_equal());
    fs::write(world.app("a"), "the app's").expect("write");
    let committed = peer.batch(vec![file_op("a", 0o644, b"newer")]);
    assert!(matches!(&committed.problems[..], [p] if p.kind == ProblemKind::Conflict), "{committed:?}");
}

#[test]
#[ignore = "needs: root"]
fn a_change_between_the_check_and_the_commit_is_a_conflict() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    old().sync(&mut peer).clean();
    let begin = peer.begin();
    let ops = [file_op("a", 0o644, b"new a"), Op::Delete { path: path("b") }];
    let [first, second] = ops.map(|op| Request::Op { root: 0, op });
    peer.send(&[begin, first, second]);
    peer.settle();
    fs::write(world.app("a"), "the app's a").expect("write");
    fs::write(world.app("b"), "the app's b").expect("write");
    let commit = peer.commit_request();
    peer.send(&[commit]);
    let committed = peer.committed();
    assert_eq!(committed.problems.len(), 2, "{committed:?}");
    assert!(committed.problems.iter().all(|p| p.kind == ProblemKind::Conflict));
    assert_eq!(fs::read(world.app("a")).expect("read"), b"the app's a");
    assert_eq!(fs::read(world.app("b")).expect("read"), b"the app's b");
    assert_eq!(temps(&world.app("")), [""; 0]);
}

#[test]
#[ignore = "needs: root"]
fn files_of_the_image_are_replaced_and_never_deleted_unasked() {
    let world = World::start(As::User(1000, 1000), |root| {
        own_app(root);
        fs::create_dir(root.join("app/d")).expect("mkdir");
        for (name, content) in [("a", "image"), ("same", "same"), ("d/x", "image")] {
            fs::write(root.join("app").join(name), content).expect("write");
        }
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = Laptop::default().file("a", 0o644, b"laptop").file("same", 0o644, b"same").dir("d");
    let synced = laptop.sync(&mut peer);
    assert_eq!(synced.needs, ["a"]);
    synced.clean();
    assert_eq!(fs::read(world.app("a")).expect("read"), b"laptop");
    // `same` was in the image: it stays when the laptop loses it.
    let synced = laptop.clone().without("same").without("d").sync(&mut peer);
    assert_eq!(synced.deletes, [""; 0]);
    let committed = peer.batch(vec![Op::Delete { path: path("same") }, Op::Delete { path: path("d/x") }]);
    assert!(committed.applied && committed.problems.iter().all(|p| p.kind == ProblemKind::Kept));
    assert_eq!(committed.problems.len(), 2);
    assert!(world.app("same").exists() && world.app("d/x").exists());
    peer.close();
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open_with("/app", RootOptions { delete: true, ..RootOptions::default() });
    let mut extras =
        laptop.clone().without("same").without("d").file("a", 0o644, b"2").sync(&mut peer).extras;
    extras.sort();
    assert_eq!(extras, ["d", "d/x", "same"]);
    assert!(!world.app("same").exists() && !world.app("d").exists());
}

#[test]
#[ignore = "needs: root"]
fn own_files_are_deleted_and_a_directory_with_others_in_it_stays() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = old().dir("e").file("e/x", 0o644, b"x");
    laptop.sync(&mut peer).clean();
    fs::write(world.app("d/log"), "the app's").expect("write");
    let synced = laptop.clone().without("d").without("e").sync(&mut peer);
    let mut deletes = synced.deletes;
    deletes.sort();
    assert_eq!(deletes, ["d", "d/c", "e", "e/x"]);
    let committed = synced.committed.expect("a batch");
    assert!(matches!(&committed.problems[..], [p] if p.kind == ProblemKind::Kept && p.path == path("d")));
    assert!(!world.app("d/c").exists() && !world.app("e").exists());
    assert_eq!(fs::read(world.app("d/log")).expect("read"), b"the app's");
    assert!(laptop.without("d").without("e").sync(&mut peer).is_equal());
}
