//! A full disk, a read-only root, files that are mounts, missing rights, and a gigabyte: said clearly, nothing lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use devsync_protocol::delta::Step;
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::{Content, Op, ProblemKind, Reply, Request, RootOptions};

use crate::compare::{own_app, world};
use crate::laptop::{Laptop, file_op, path};
use crate::peer::{AGENT, Peer, temps};
use crate::world::{As, World, fingerprint};

/// A path as the app's own mounts show it.
fn inside(world: &World, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root/app/{name}", world.pid()))
}

#[test]
#[ignore = "needs: root"]
fn a_full_disk_loses_nothing_and_the_next_save_works() {
    let mounts = "mount -t tmpfs -o size=4m,mode=777 none \"$root/app/small\"";
    let world = World::start_with(As::User(1000, 1000), mounts, |root| {
        own_app(root);
        fs::create_dir(root.join("app/small")).expect("mkdir");
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert!(peer.batch(vec![file_op("small/a", 0o644, b"old")]).applied);
    // From memory, all at the commit.
    let many = (0..60).map(|n| file_op(&format!("small/{n}"), 0o644, &vec![n; 100_000])).collect();
    let from_memory = peer.batch([vec![file_op("small/a", 0o644, b"new")], many].concat());
    // Spilled while it arrives.
    let begin = peer.begin();
    let size = 20 << 20;
    let content = Content::Follows { base: None };
    let op = Op::File { path: path("small/a"), mode: 0o644, size, digest: Digest::of(b""), content };
    let steps = (0..40).map(|_| Request::Steps(vec![Step::Data(vec![7; 512 * 1024])]));
    let commit = peer.commit_request();
    let requests: Vec<_> =
        [begin, Request::Op { root: 0, op }].into_iter().chain(steps).chain([commit]).collect();
    peer.send(&requests);
    for committed in [from_memory, peer.committed()] {
        assert!(!committed.applied);
        let problem = &committed.problems[0];
        assert_eq!(problem.kind, ProblemKind::Io);
        assert!(problem.cause.contains("No space left"), "{problem:?}");
        assert!(problem.hint.as_ref().is_some_and(|hint| hint.contains("room")), "{problem:?}");
    }
    assert_eq!(fs::read(inside(&world, "small/a")).expect("read"), b"old");
    assert_eq!(fs::read_dir(inside(&world, "small")).expect("list").count(), 1);
    assert!(peer.batch(vec![file_op("small/a", 0o644, b"new")]).applied);
    assert_eq!(fs::read(inside(&world, "small/a")).expect("read"), b"new");
}

#[test]
#[ignore = "needs: root"]
fn a_read_only_root_is_refused_before_any_byte() {
    let mounts = "mount --bind \"$root/app\" \"$root/app\"; mount -o remount,bind,ro \"$root/app\"";
    let world = World::start_with(As::User(1000, 1000), mounts, own_app);
    let state = tempfile::tempdir().expect("a directory");
    for place in ["/app", "/app/new/dir"] {
        let mut peer = Peer::start(world.pid(), state.path());
        let refusal = peer.refused(place, RootOptions::default());
        assert!(refusal.cause.contains("/app") && refusal.cause.contains("read-only"), "{refusal:?}");
        assert!(refusal.hint.is_some_and(|hint| hint.contains("readOnlyRootFilesystem")));
    }
}

#[test]
#[ignore = "needs: root"]
fn a_directory_of_root_is_refused_to_an_agent_with_the_apps_ids_before_any_byte() {
    let world = World::start(As::User(1000, 1000), |root| {
        fs::set_permissions(root.join("app"), fs::Permissions::from_mode(0o755)).expect("chmod");
    });
    // A copy: the build directory may be closed to other users.
    let agent = world.dir.path().join("agent");
    fs::copy(AGENT, &agent).expect("copy");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("chmod");
    let state = world.dir.path().join("state");
    fs::create_dir(&state).expect("mkdir");
    chown(&state, Some(1000), Some(1000)).expect("chown");
    let before = fingerprint(&world.app(""));
    for place in ["/app", "/app/new/dir"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all"]).arg(&agent);
        let mut peer = Peer::command(command, "ann", world.pid(), &state);
        assert!(peer.report.write.iter().any(|w| !w.verdict.is_permitted()), "{:?}", peer.report.write);
        let refusal = peer.refused(place, RootOptions::default());
        assert!(refusal.cause.contains("cannot write in \"/app\":"), "{refusal:?}");
        assert!(
            refusal
                .hint
                .is_some_and(|hint| hint.contains("workspace volume") && hint.contains("DAC_OVERRIDE"))
        );
    }
    assert_eq!(fingerprint(&world.app("")), before);
}

#[test]
#[ignore = "needs: root"]
fn a_file_that_is_a_mount_is_written_in_place_and_that_is_said() {
    let mounts = "mount --bind \"$root/etc/seed\" \"$root/app/conf\"";
    let world = World::start_with(As::User(1000, 1000), mounts, |root| {
        own_app(root);
        for file in ["etc/seed", "app/conf"] {
            fs::write(root.join(file), "a long old content").expect("write");
            chown(root.join(file), Some(1000), Some(1000)).expect("chown");
        }
    });
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let laptop = Laptop::default().file("conf", 0o644, b"new").file("other", 0o644, b"new");
    let committed = laptop.sync(&mut peer).clean();
    assert_eq!(committed.in_place, [path("conf")]);
    assert_eq!(fs::read(inside(&world, "conf")).expect("read"), b"new");
    assert_eq!(temps(&world.app("")), [""; 0]);
    assert!(laptop.sync(&mut peer).is_equal());
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_ends_is_told_and_nothing_is_written_afterwards() {
    let mut world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    assert!(peer.batch(vec![file_op("a", 0o644, b"old")]).applied);
    let begin = peer.begin();
    peer.send(&[begin, Request::Op { root: 0, op: file_op("a", 0o644, b"new") }]);
    peer.settle();
    world.end_app();
    let Some(Reply::Gone { reason }) = peer.next() else { panic!("not told") };
    assert!(reason.contains(&world.pid().to_string()), "{reason}");
    let before = fingerprint(&world.app(""));
    let commit = peer.commit_request();
    assert!(matches!(peer.ask(commit), Reply::Gone { .. }));
    let op = Request::Op { root: 0, op: file_op("b", 0o644, b"new") };
    let requests = [peer.begin(), op, peer.commit_request()];
    peer.send(&requests);
    assert!(matches!(peer.next(), Some(Reply::Gone { .. })));
    assert_eq!(fingerprint(&world.app("")), before);
    assert_eq!(temps(&world.app("")), [""; 0]);
}

#[test]
#[ignore = "needs: root"]
fn a_gigabyte_arrives_in_little_memory() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut peer = Peer::start(world.pid(), state.path());
    peer.open("/app");
    let piece = |n: u32| {
        let mut piece = vec![0; 512 * 1024];
        piece[..4].copy_from_slice(&n.to_le_bytes());
        piece
    };
    let pieces = 2048;
    let mut hasher = Hasher::new();
    (0..pieces).for_each(|n| hasher.update(&piece(n)));
    let begin = peer.begin();
    let content = Content::Follows { base: None };
    let op = Op::File { path: path("big"), mode: 0o644, size: 1 << 30, digest: hasher.finish(), content };
    peer.send(&[begin, Request::Op { root: 0, op }]);
    for n in 0..pieces {
        peer.send(&[Request::Steps(vec![Step::Data(piece(n))])]);
    }
    let commit = peer.commit_request();
    peer.send(&[commit]);
    let committed = peer.committed();
    assert!(committed.applied && committed.problems.is_empty(), "{committed:?}");
    let peak = peer.peak_kib();
    println!("peak resident memory: {peak} KiB");
    assert!(peak <= 64 * 1024, "{peak} KiB");
    assert_eq!(fs::metadata(world.app("big")).expect("stat").len(), 1 << 30);
}
