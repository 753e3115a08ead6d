//! Trees are compared by their directories, and an equal one costs one trip.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};

use devsync_protocol::message::{Reply, Request, RootOptions};
use devsync_protocol::tree::Node;

use crate::laptop::Laptop;
use crate::peer::{Peer, temps};
use crate::world::{As, World};

/// An app of uid and gid 1000 whose /app is its own.
pub(crate) fn world() -> World {
    World::start(As::User(1000, 1000), own_app)
}

pub(crate) fn own_app(root: &std::path::Path) {
    chown(root.join("app"), Some(1000), Some(1000)).expect("chown");
}

fn tree() -> Laptop {
    Laptop::default()
        .file("main.py", 0o644, b"print(1)\n")
        .dir("lib")
        .file("lib/a.py", 0o644, b"a")
        .file("lib/b.py", 0o755, b"b")
        .dir("lib/deep")
        .file("lib/deep/c.py", 0o644, b"c")
        .dir("empty")
        .link("link", "lib/a.py")
}

#[test]
#[ignore = "needs: root"]
fn a_tree_is_written_once_and_then_found_equal_in_one_trip() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let first = tree().sync(&mut peer);
    assert!(!first.is_equal());
    first.clean();
    assert_eq!(fs::read(world.app("lib/deep/c.py")).expect("read"), b"c");
    assert_eq!(fs::read_link(world.app("link")).expect("link").as_os_str().as_bytes(), b"lib/a.py");
    let new = fs::metadata(world.app("lib/b.py")).expect("stat");
    assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (1000, 1000, 0o755));
    assert!(world.app("empty").is_dir());
    // In the same session, and in the next.
    assert!(tree().sync(&mut peer).is_equal());
    assert!(tree().sync(&mut peer).is_equal());
    assert!(peer.close().success());
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert!(tree().sync(&mut peer).is_equal());
    assert_eq!(temps(&world.root().join("app")), [""; 0]);
}

#[test]
#[ignore = "needs: root"]
fn a_change_names_its_own_directory_and_file_alone() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    tree().sync(&mut peer).clean();
    let synced = tree().file("lib/a.py", 0o644, b"changed").sync(&mut peer);
    assert_eq!(
        (&synced.differing[..], &synced.needs[..]),
        (&["lib".to_owned()][..], &["lib/a.py".to_owned()][..])
    );
    assert_eq!(synced.clean().changed, 1);
    assert_eq!(fs::read(world.app("lib/a.py")).expect("read"), b"changed");
}

#[test]
#[ignore = "needs: root"]
fn a_file_that_was_only_touched_is_no_difference() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    tree().sync(&mut peer).clean();
    fs::write(world.app("main.py"), b"print(1)\n").expect("write");
    assert!(tree().sync(&mut peer).is_equal());
    fs::write(world.app("main.py"), b"print(2)\n").expect("write");
    assert_eq!(tree().sync(&mut peer).differing, [""]);
}

#[test]
#[ignore = "needs: root"]
fn odd_names_arrive_as_they_are() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let long = [b'n'; 255];
    let laptop = Laptop::default()
        .file(&b"new\nline"[..], 0o644, b"1")
        .file(&b"\x1b[31mred"[..], 0o644, b"2")
        .file(&b"\xff\xfe invalid"[..], 0o644, b"3")
        .file(long, 0o644, b"4")
        .file(&b"-rf"[..], 0o644, b"5");
    laptop.sync(&mut peer).clean();
    let names: Vec<Vec<u8>> = laptop.tree.0.keys().map(|path| path.as_bytes().to_vec()).collect();
    let mut found: Vec<Vec<u8>> = fs::read_dir(world.app(""))
        .expect("list")
        .map(|entry| entry.expect("entry").file_name().as_bytes().to_vec())
        .collect();
    found.sort();
    assert_eq!(found, names);
    peer.close();
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert!(laptop.sync(&mut peer).is_equal());
}

#[test]
#[ignore = "needs: root"]
fn verify_reads_what_is_really_there() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = tree();
    laptop.sync(&mut peer).clean();
    fs::remove_file(world.app("lib/b.py")).expect("remove");
    fs::write(world.app("main.py"), b"print(2)\n").expect("write");
    let Reply::Digests { entries, last: true, .. } = peer.ask(Request::Verify { root: 0 }) else {
        panic!("no digests")
    };
    assert_eq!(entries.len(), laptop.tree.0.len() - 1);
    let differing: Vec<_> = entries.iter().filter(|e| laptop.tree.0[&e.path] != e.node).collect();
    assert!(
        matches!(&differing[..], [one] if one.path.as_bytes() == b"main.py" && matches!(one.node, Node::File { .. }))
    );
}

#[test]
#[ignore = "needs: root"]
fn a_look_beside_a_session_leaves_its_record_alone() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    tree().sync(&mut peer).clean();
    let looking = RootOptions { dry_run: true, ..RootOptions::default() };
    let mut looker = Peer::named("bob", world.pid(), state.path());
    looker.open_with("/app", looking);
    let dirs = tree().tree.dir_digests();
    let tree_digest = devsync_protocol::tree::root_digest(&dirs);
    let compare = Request::Compare { root: 0, tree: tree_digest, dirs, last: true };
    assert!(
        matches!(looker.ask(compare), Reply::Compared { differing, gone: false, .. } if differing.is_empty())
    );
    looker.close();
    let more = tree().file("more", 0o644, b"more");
    more.sync(&mut peer).clean();
    peer.close();
    // Had the looker replaced the record, `more` would not be devsync's to delete.
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert_eq!(tree().sync(&mut peer).deletes, ["more"]);
    assert!(!world.app("more").exists());
}
