//! Entries that change their kind, all in one batch.

use std::fs;
use std::os::unix::fs::symlink;

use crate::compare::world;
use crate::laptop::Laptop;
use crate::peer::{Peer, temps};
use crate::world::fingerprint;

#[test]
#[ignore = "needs: root"]
fn every_kind_may_become_every_other_in_one_batch() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let old = Laptop::default()
        .file("file-dir", 0o644, b"1")
        .dir("dir-file")
        .dir("dir-file/sub")
        .file("dir-file/sub/x", 0o644, b"x")
        .link("link-file", "target")
        .file("file-link", 0o644, b"2")
        .dir("dir-link")
        .file("dir-link/y", 0o644, b"y")
        .link("link-dir", "target");
    old.sync(&mut peer).clean();
    let new = Laptop::default()
        .dir("file-dir")
        .dir("file-dir/sub")
        .dir("file-dir/sub/deeper")
        .file("file-dir/sub/deeper/z", 0o644, b"z")
        .file("dir-file", 0o644, b"3")
        .file("link-file", 0o644, b"4")
        .link("file-link", "target")
        .link("dir-link", "target")
        .dir("link-dir")
        .file("link-dir/z", 0o644, b"z");
    new.sync(&mut peer).clean();
    assert_eq!(fs::read(world.app("file-dir/sub/deeper/z")).expect("read"), b"z");
    assert_eq!(fs::read(world.app("dir-file")).expect("read"), b"3");
    assert_eq!(fs::read(world.app("link-file")).expect("read"), b"4");
    assert!(fs::symlink_metadata(world.app("link-file")).expect("stat").is_file());
    assert!(fs::read_link(world.app("file-link")).is_ok() && fs::read_link(world.app("dir-link")).is_ok());
    assert_eq!(fs::read(world.app("link-dir/z")).expect("read"), b"z");
    assert!(new.sync(&mut peer).is_equal());
    old.sync(&mut peer).clean();
    assert_eq!(fs::read(world.app("dir-file/sub/x")).expect("read"), b"x");
    assert!(old.sync(&mut peer).is_equal());
    assert_eq!(temps(&world.app("")), [""; 0]);
}

#[test]
#[ignore = "needs: root"]
fn a_directory_that_replaces_a_link_touches_nothing_behind_the_link() {
    let world = world();
    let other = world.app("other");
    fs::create_dir(&other).expect("mkdir");
    fs::write(other.join("x"), "the image's").expect("write");
    symlink("other", world.app("a")).expect("symlink");
    let before = fingerprint(&other);
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = Laptop::default()
        .dir("a")
        .file("a/x", 0o644, b"the laptop's")
        .dir("a/new")
        .file("a/new/y", 0o644, b"y");
    laptop.sync(&mut peer).clean();
    assert!(fs::symlink_metadata(world.app("a")).expect("stat").is_dir());
    assert_eq!(fs::read(world.app("a/x")).expect("read"), b"the laptop's");
    assert_eq!(fs::read(world.app("a/new/y")).expect("read"), b"y");
    assert_eq!(fingerprint(&other), before);
}

#[test]
#[ignore = "needs: root"]
fn nothing_goes_through_a_link_that_is_kept() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    Laptop::default().link("a", "nowhere").sync(&mut peer).clean();
    // The app points the link elsewhere: devsync keeps it, and does not write behind it.
    let other = world.app("other");
    fs::create_dir(&other).expect("mkdir");
    fs::remove_file(world.app("a")).expect("remove");
    symlink("other", world.app("a")).expect("symlink");
    let before = fingerprint(&other);
    let ops = vec![
        devsync_protocol::message::Op::Dir { path: crate::laptop::path("a"), mode: 0o755 },
        crate::laptop::file_op("a/x", 0o644, b"x"),
    ];
    let committed = peer.batch(ops);
    assert_eq!(committed.problems.len(), 2, "{committed:?}");
    assert_eq!(fingerprint(&other), before);
    assert_eq!(fs::read_link(world.app("a")).expect("a link").to_str(), Some("other"));
}
