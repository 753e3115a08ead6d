//! Owners and permission bits: the image's are kept, the laptop's changes are followed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use devsync_protocol::message::RootOptions;

use crate::compare::own_app;
use crate::laptop::Laptop;
use crate::peer::Peer;
use crate::world::{As, World};

fn put(path: &Path, content: &str, mode: u32, owner: u32) {
    fs::write(path, content).expect("write");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    chown(path, Some(owner), Some(owner)).expect("chown");
}

fn seen(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).expect("stat");
    (found.mode() & 0o7777, found.uid(), found.gid())
}

#[test]
#[ignore = "needs: root"]
fn replaced_files_keep_owner_and_mode_and_follow_the_laptop_afterwards() {
    let world = World::start(As::User(1000, 1000), |root| {
        own_app(root);
        put(&root.join("app/conf"), "image", 0o640, 1234);
        put(&root.join("app/script"), "image", 0o640, 0);
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = Laptop::default().file("conf", 0o664, b"new").file("script", 0o755, b"new");
    laptop.sync(&mut peer).clean();
    assert_eq!(seen(&world.app("conf")), (0o640, 1234, 1234));
    assert_eq!(seen(&world.app("script")), (0o750, 0, 0));
    // The mode alone changes: nothing but the mode is sent, and it is applied in full.
    let inode = fs::metadata(world.app("conf")).expect("stat").ino();
    laptop.clone().file("conf", 0o600, b"new").sync(&mut peer).clean();
    assert_eq!(seen(&world.app("conf")), (0o600, 1234, 1234));
    assert_eq!(fs::metadata(world.app("conf")).expect("stat").ino(), inode);
    // Content and mode at once.
    laptop.file("conf", 0o755, b"newer").sync(&mut peer).clean();
    assert_eq!(seen(&world.app("conf")), (0o755, 1234, 1234));
}

#[test]
#[ignore = "needs: root"]
fn new_entries_belong_to_their_directorys_owner() {
    let world = World::start(As::User(1000, 1000), |root| {
        own_app(root);
        fs::create_dir(root.join("app/image")).expect("mkdir");
        chown(root.join("app/image"), Some(1234), Some(1235)).expect("chown");
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = Laptop::default()
        .dir("image")
        .file("image/new", 0o644, b"new")
        .dir("image/sub")
        .link("image/link", "new")
        .file("own", 0o600, b"own");
    laptop.sync(&mut peer).clean();
    assert_eq!(seen(&world.app("image/new")), (0o644, 1234, 1235));
    assert_eq!(seen(&world.app("image/sub")), (0o755, 1234, 1235));
    assert_eq!(seen(&world.app("image/link")), (0o777, 1234, 1235));
    assert_eq!(seen(&world.app("own")), (0o600, 1000, 1000));
}

#[test]
#[ignore = "needs: root"]
fn files_in_place_keep_their_inode_and_follow_the_exec_bit() {
    let world = World::start(As::User(1000, 1000), |root| {
        own_app(root);
        put(&root.join("app/watched.log"), "image", 0o640, 1000);
        put(&root.join("app/other"), "image", 0o640, 1000);
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open_with("/app", RootOptions { inplace: vec!["*.log".to_owned()], ..RootOptions::default() });
    let inode = |name: &str| fs::metadata(world.app(name)).expect("stat").ino();
    let before = (inode("watched.log"), inode("other"));
    let laptop = Laptop::default().file("watched.log", 0o755, b"new and longer").file("other", 0o644, b"new");
    let committed = laptop.sync(&mut peer).clean();
    assert_eq!(committed.in_place.iter().map(ToString::to_string).collect::<Vec<_>>(), ["watched.log"]);
    assert_eq!(inode("watched.log"), before.0);
    assert_ne!(inode("other"), before.1);
    assert_eq!(seen(&world.app("watched.log")).0, 0o750);
    laptop.clone().file("watched.log", 0o755, b"short").sync(&mut peer).clean();
    assert_eq!(fs::read(world.app("watched.log")).expect("read"), b"short");
}

#[test]
#[ignore = "needs: root"]
fn a_replaced_file_becomes_newer_than_it_was() {
    let world = World::start(As::User(1000, 1000), |root| {
        own_app(root);
        put(&root.join("app/future"), "image", 0o644, 1000);
    });
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(86400);
    let file = fs::File::options().write(true).open(world.app("future")).expect("open");
    file.set_modified(future).expect("utimes");
    let before = fs::metadata(world.app("future")).expect("stat").mtime();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    Laptop::default().file("future", 0o644, b"new").sync(&mut peer).clean();
    assert!(fs::metadata(world.app("future")).expect("stat").mtime() > before);
}
