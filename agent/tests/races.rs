//! An app that exchanges directories and symlinks while the agent works: nothing outside changes.

#[path = "target_world/world.rs"]
mod world;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

use devsync_agent::target::error::TargetError;
use devsync_agent::target::root::SyncRoot;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use world::{As, World, fingerprint, with_and_without_openat2};

const OPERATIONS: u32 = 100_000;
/// A refusal is quicker than anything else, so of equal times most operations are refused: it goes on until this
/// many were not.
const DONE: u32 = 2_000;
const SWAPS: &str = "DEVSYNC_TEST_SWAPS";

/// The attacker: this executable again, running `the_swapper` until it is killed.
struct Swapper(Child);

impl Swapper {
    fn start(directory: &Path) -> Self {
        let exe = std::env::current_exe().expect("own path");
        let mut command = Command::new(exe);
        command.args(["--exact", "the_swapper", "--include-ignored"]).env(SWAPS, directory);
        Self(command.stdout(std::process::Stdio::null()).spawn().expect("spawn"))
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exchanges `d` with each link in turn, for ever; does nothing unless it was started as the attacker.
#[test]
#[ignore = "the attacker: the other tests start it"]
fn the_swapper() {
    let Ok(directory) = std::env::var(SWAPS) else { return };
    let directory = Path::new(&directory);
    let d = directory.join("d");
    let links = ["absolute", "relative", "root", "sibling", "dotted", "nested"].map(|l| directory.join(l));
    for link in links.iter().cycle() {
        for _ in 0..2 {
            // Another order of the two shows the link's name as the directory, too.
            let _ = renameat2(AT_FDCWD, &d, AT_FDCWD, link, RenameFlags::RENAME_EXCHANGE);
            // Without a little time for the agent in either state nearly every operation would be refused.
            (0..16).for_each(|_| drop(fs::symlink_metadata(&d)));
        }
    }
}

/// One operation of each kind in turn, on the contested directory.
fn operate(sync: &SyncRoot, turn: u32) -> Result<(), TargetError> {
    let (parent, leaf) = sync.parent(b"d/f")?;
    match turn % 8 {
        0 => {
            let mut temp = parent.create_temp()?;
            let _ = temp.write_all(b"new");
            temp.rename_over(leaf)
        }
        1 => sync.mkdir_all(b"d/new/deep", 0o755),
        2 => sync.parent(b"d/new/deep").and_then(|(p, l)| p.rmdir(l)),
        3 => parent.rename(leaf, &parent, b"g"),
        4 => parent.rename(b"g", &parent, leaf),
        5 => parent
            .chmod(leaf, 0o600 | (turn % 64))
            .and_then(|()| parent.set_mtime(leaf, (i64::from(turn), 0))),
        6 => {
            parent.write_in_place(leaf, &mut &b"in place"[..])?;
            parent.symlink(b"f", b"l")?;
            parent.unlink(b"l")
        }
        _ => parent.unlink(leaf),
    }
}

#[test]
#[ignore = "needs: root"]
fn a_swapped_directory_leads_nothing_outside() {
    with_and_without_openat2(|variant| {
        let world = World::start(As::Root, |root| {
            fs::create_dir_all(root.join("app/d/new")).expect("mkdir");
            fs::create_dir_all(root.join("app/other/deep")).expect("mkdir");
        });
        let outside = world.dir.path().join("outside");
        let within = world.root().join("etc");
        for decoy in [&outside, &within] {
            fs::create_dir_all(decoy.join("new/deep")).expect("mkdir");
            fs::write(decoy.join("f"), "decoy").expect("write");
            fs::write(decoy.join("g"), "decoy").expect("write");
        }
        symlink(&outside, world.app("absolute")).expect("symlink");
        symlink("../../outside", world.app("relative")).expect("symlink");
        // Through a magic link to the same decoy: a test that fails must not change the machine.
        let magic = format!("/proc/self/root{}", outside.display());
        symlink(magic, world.app("root")).expect("symlink");
        symlink("../etc", world.app("sibling")).expect("symlink");
        symlink("other/../../etc", world.app("dotted")).expect("symlink");
        // This one stays inside: following it is right, with openat2.
        symlink("d/../other", world.app("nested")).expect("symlink");
        let before = (fingerprint(&outside), fingerprint(&within));
        let sync = world.sync_root();
        let _ids = sync.enter().expect("ids");
        let swapper = Swapper::start(&world.app(""));
        let (mut done, mut refused, mut gave_up) = (0u32, 0u32, 0u32);
        for turn in 0..20 * OPERATIONS {
            if turn >= OPERATIONS && done >= DONE {
                break;
            }
            match operate(&sync, turn) {
                Ok(()) => done += 1,
                Err(TargetError::Escapes { .. } | TargetError::SymlinkOnTheWay { .. }) => refused += 1,
                Err(TargetError::Racing { .. }) => gave_up += 1,
                Err(error) => assert_ne!(error.errno(), Some(Errno::EINVAL), "{error}"),
            }
        }
        drop(swapper);
        println!("{variant}: {done} done, {refused} refused, {gave_up} gave up");
        assert!(done >= DONE && refused >= DONE, "{variant}: no race: {done} done, {refused} refused");
        assert!(gave_up < OPERATIONS / 10, "{variant}: {gave_up} gave up");
        assert_eq!(fingerprint(&outside), before.0, "{variant}: outside of the root");
        assert_eq!(fingerprint(&within), before.1, "{variant}: outside of the synced directory");
    });
}

#[test]
#[ignore = "needs: root"]
fn a_swapped_leaf_is_never_followed() {
    with_and_without_openat2(|variant| {
        let world = World::start(As::Root, |root| {
            fs::create_dir_all(root.join("app/d")).expect("mkdir");
        });
        let outside = world.dir.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        fs::write(outside.join("victim"), "decoy").expect("write");
        let before = fingerprint(&outside);
        for link in ["absolute", "relative", "root", "sibling", "dotted", "nested"] {
            symlink(outside.join("victim"), world.app(link)).expect("symlink");
        }
        fs::remove_dir(world.app("d")).expect("rmdir");
        fs::write(world.app("d"), "mine").expect("write");
        let parent = world.sync_root().directory(b"").expect("parent");
        let swapper = Swapper::start(&world.app(""));
        let (mut done, mut refused) = (0u32, 0u32);
        for turn in 0..OPERATIONS / 4 {
            let result = match turn % 4 {
                0 => parent.chmod(b"d", 0o600 | (turn % 64)),
                1 => parent.write_in_place(b"d", &mut &b"mine, in place"[..]).map(drop),
                2 => parent.set_mtime(b"d", (i64::from(turn), 0)),
                _ => parent.open_read(b"d").map(|(file, _)| {
                    let text = std::io::read_to_string(file).expect("read");
                    assert!(text.starts_with("mine"), "{variant}: read {text:?}");
                }),
            };
            if result.is_ok() { done += 1 } else { refused += 1 }
        }
        drop(swapper);
        assert!(done > 100 && refused > 100, "{variant}: no race took place: {done} done, {refused} refused");
        assert_eq!(fingerprint(&outside), before, "{variant}");
    });
}
