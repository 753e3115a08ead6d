//! The watcher on real files: how editors save, how git changes branches, what is lost and found.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use devsync_cli::local::{Note, Rescan, RuleOptions, ScanError};
use devsync_protocol::digest::Digest;
use devsync_protocol::tree::{Node, Tree};

use crate::harness::{Live, git, names, rel, shown, write};

fn plain(prepare: impl FnOnce(&Path)) -> Live {
    Live::start("", RuleOptions::default(), prepare)
}

fn holds(tree: &Tree, path: &str, content: &str) -> bool {
    let digest = Digest::of(content.as_bytes());
    matches!(tree.0.get(&rel(path)), Some(Node::File { digest: d, .. }) if *d == digest)
}

#[test]
fn a_save_in_place_is_one_change_with_its_new_content() {
    let mut live = plain(|d| write(d, "src/a.py", "old"));
    fs::write(live.root.join("src/a.py"), "new").expect("write");
    let (change, update) = live.next();
    assert_eq!(shown(&change), ["src/a.py"]);
    assert_eq!(update.changed.len(), 1);
    assert!(holds(&live.tree, "src/a.py", "new"));
    live.settle();
    live.assert_true();
}

#[test]
fn a_save_by_rename_is_one_change_of_the_file_alone() {
    let mut live = plain(|d| write(d, "a.py", "old"));
    fs::write(live.root.join(".a.py.tmp"), "new").expect("write");
    fs::rename(live.root.join(".a.py.tmp"), live.root.join("a.py")).expect("rename");
    live.until(|tree| holds(tree, "a.py", "new"));
    assert_eq!(names(&live.tree), ["a.py"]);
    live.settle();
    live.assert_true();
}

#[test]
fn a_save_with_a_backup_never_shows_the_file_as_gone() {
    let mut live = plain(|d| write(d, "a.py", "old"));
    let root = live.root.clone();
    let at = |name: &str| root.join(name);
    for content in ["one", "two", "three"] {
        // As vim does with backup and writebackup: probe, backup by rename, write, remove the backup.
        File::create(at("4913")).expect("create");
        fs::remove_file(at("4913")).expect("remove");
        fs::rename(at("a.py"), at("a.py~")).expect("rename");
        let mut file = File::create(at("a.py")).expect("create");
        file.write_all(content.as_bytes()).expect("write");
        file.sync_all().expect("fsync");
        drop(file);
        fs::remove_file(at("a.py~")).expect("remove");
        while !holds(&live.tree, "a.py", content) {
            let (_, update) = live.next();
            assert!(!update.deleted.contains(&rel("a.py")), "{update:?}");
        }
    }
    live.settle();
    live.assert_true();
}

#[test]
fn touch_chmod_and_links_are_seen() {
    let mut live = plain(|d| write(d, "a", "x"));
    fs::set_permissions(live.root.join("a"), fs::Permissions::from_mode(0o755)).expect("chmod");
    live.until(|tree| matches!(tree.0.get(&rel("a")), Some(Node::File { mode: 0o755, .. })));
    symlink("a", live.root.join("l")).expect("symlink");
    live.until(|tree| tree.0.contains_key(&rel("l")));
    fs::hard_link(live.root.join("a"), live.root.join("h")).expect("link");
    live.until(|tree| tree.0.contains_key(&rel("h")));
    File::create(live.root.join("touched")).expect("create");
    live.until(|tree| tree.0.contains_key(&rel("touched")));
    File::open(live.root.join("a")).expect("open").set_modified(std::time::UNIX_EPOCH).expect("utimes");
    let (change, update) = live.next();
    assert!(change.paths.contains(&rel("a")) && update.is_empty());
    live.settle();
    live.assert_true();
}

#[test]
fn a_file_that_is_still_being_written_waits_for_its_close() {
    let mut live = plain(|d| write(d, "a", "old"));
    let mut file = File::create(live.root.join("a")).expect("create");
    file.write_all(b"ha").expect("write");
    file.write_all(b"lf").expect("write");
    drop(file);
    live.next();
    assert!(holds(&live.tree, "a", "half"));
}

#[test]
fn directories_made_with_files_at_once_inside_are_complete() {
    let mut live = plain(|_| {});
    for round in 0..10 {
        for i in 0..5 {
            write(&live.root, &format!("r{round}/a/b{i}/c/f{i}"), "x");
        }
    }
    live.settle();
    live.assert_true();
    write(&live.root, "r3/a/b2/c/new", "watched too");
    live.until(|tree| tree.0.contains_key(&rel("r3/a/b2/c/new")));
}

#[test]
fn a_renamed_directory_moves_with_all_that_is_in_it_and_stays_watched() {
    let mut live = plain(|d| {
        write(d, "old/sub/f", "1");
        write(d, "old/g", "2");
    });
    fs::rename(live.root.join("old"), live.root.join("new")).expect("rename");
    live.settle();
    live.assert_true();
    assert!(live.has("new/sub/f") && !live.has("old"));
    write(&live.root, "new/sub/f", "changed");
    live.until(|tree| holds(tree, "new/sub/f", "changed"));
    fs::create_dir(live.root.join("old")).expect("mkdir");
    write(&live.root, "old/again", "");
    live.until(|tree| tree.0.contains_key(&rel("old/again")));
    live.settle();
    live.assert_true();
}

#[test]
fn a_directory_removed_and_made_again_at_once_stays_watched() {
    let mut live = plain(|d| write(d, "build/out/f", "0"));
    for round in 1..30 {
        fs::remove_dir_all(live.root.join("build")).expect("remove");
        write(&live.root, "build/out/f", format!("{round}"));
    }
    live.settle();
    live.assert_true();
    write(&live.root, "build/out/f", "last");
    live.until(|tree| holds(tree, "build/out/f", "last"));
}

#[test]
fn what_comes_from_outside_and_what_leaves_is_seen() {
    let mut live = Live::start("root", RuleOptions::default(), |d| {
        write(d, "outside/sub/f", "1");
        write(d, "root/d/g", "2");
    });
    let outside = live.dir.path().join("outside");
    fs::rename(&outside, live.root.join("came")).expect("rename");
    live.until(|tree| tree.0.contains_key(&rel("came/sub/f")));
    fs::rename(live.root.join("d"), &outside).expect("rename");
    live.until(|tree| !tree.0.contains_key(&rel("d")));
    assert!(!live.has("d/g"));
    live.settle();
    live.assert_true();
}

#[test]
fn what_is_ignored_makes_no_change() {
    let mut live = plain(|d| {
        write(d, ".gitignore", "node_modules/\n*.log\n");
        write(d, "node_modules/a/b.js", "");
    });
    write(&live.root, "node_modules/a/c.js", "");
    write(&live.root, "x.log", "");
    write(&live.root, "node_modules/new/d.js", "");
    write(&live.root, "seen", "");
    let (change, _) = live.next();
    assert_eq!(shown(&change), ["seen"]);
}

#[test]
fn a_changed_ignore_file_changes_what_is_watched() {
    let mut live = plain(|d| {
        write(d, ".gitignore", "out/\n");
        write(d, "out/f", "1");
        write(d, "in/g", "2");
    });
    assert!(!live.has("out/f"));
    write(&live.root, ".gitignore", "in/\n");
    live.until(|tree| tree.0.contains_key(&rel("out/f")));
    assert!(!live.has("in/g"));
    write(&live.root, "out/f", "changed");
    live.until(|tree| holds(tree, "out/f", "changed"));
    write(&live.root, "out/.gitignore", "f\n");
    live.until(|tree| !tree.0.contains_key(&rel("out/f")));
    fs::remove_file(live.root.join("out/.gitignore")).expect("remove");
    live.until(|tree| tree.0.contains_key(&rel("out/f")));
    live.settle();
    live.assert_true();
}

#[test]
fn a_directory_in_anothers_place_brings_its_own_ignore_file() {
    let mut live = plain(|d| {
        write(d, "a/.gitignore", "f\n");
        write(d, "a/f", "");
        write(d, "b/g", "");
    });
    fs::rename(live.root.join("a"), live.root.join("c")).expect("rename");
    write(&live.root, "a/f", "new");
    live.until(|tree| holds(tree, "a/f", "new"));
    fs::rename(live.root.join("b"), live.root.join("a/b")).expect("rename");
    fs::rename(live.root.join("c"), live.root.join("b")).expect("rename");
    live.settle();
    live.assert_true();
    assert!(!live.has("b/f"));
}

#[test]
fn saving_fifty_files_is_quiet_only_when_all_are_in() {
    let mut live = plain(|d| (0..50).for_each(|i| write(d, &format!("d{}/f{i}", i % 7), "old")));
    let root = live.root.clone();
    let saver =
        std::thread::spawn(move || (0..50).for_each(|i| write(&root, &format!("d{}/f{i}", i % 7), "new")));
    let mut batches = 0;
    let all = |tree: &Tree| (0..50).all(|i| holds(tree, &format!("d{}/f{i}", i % 7), "new"));
    while !all(&live.tree) {
        live.next();
        batches += 1;
    }
    saver.join().expect("saved");
    assert!(batches <= 10, "{batches} batches");
    live.settle();
    live.assert_true();
}

fn repository(dir: &Path) {
    git(dir, &["init", "-q"]);
    for i in 0..500 {
        write(dir, &format!("src/d{}/f{i}", i % 20), format!("main {i}"));
    }
    write(dir, "src/only-main", "");
    git(dir, &["add", "."]);
    git(dir, &["commit", "-qm", "main"]);
    git(dir, &["checkout", "-qb", "other"]);
    for i in 0..500 {
        write(dir, &format!("src/d{}/f{i}", i % 20), format!("other {i}"));
    }
    fs::remove_file(dir.join("src/only-main")).expect("remove");
    git(dir, &["commit", "-qam", "other"]);
}

#[test]
fn a_branch_switch_of_five_hundred_files_is_one_batch() {
    // The root is a directory of the repository, and the repository may be a worktree.
    for worktree in [false, true] {
        let below = if worktree { "tree/src" } else { "main/src" };
        let mut live = Live::start(below, RuleOptions::default(), |dir| {
            fs::create_dir_all(dir.join("main")).expect("mkdir");
            repository(&dir.join("main"));
            if worktree {
                git(&dir.join("main"), &["checkout", "-q", "main"]);
                fs::remove_dir_all(dir.join("tree")).expect("remove");
                git(&dir.join("main"), &["worktree", "add", "-q", "../tree", "other"]);
                git(&dir.join("tree"), &["checkout", "-q", "--detach"]);
                git(&dir.join("main"), &["checkout", "-q", "--detach"]);
            }
        });
        let top = live.root.parent().expect("top").to_path_buf();
        git(&top, &["checkout", "-q", "main"]);
        let mut batches = Vec::new();
        while !holds(&live.tree, "d19/f499", "main 499") || !live.has("only-main") {
            let (change, update) = live.next();
            if !update.is_empty() {
                batches.push((shown(&change).len(), update.changed.len()));
            }
        }
        assert_eq!(batches.len(), 1, "{batches:?} {worktree}");
        live.settle();
        live.assert_true();
    }
}

#[test]
fn a_lock_that_git_left_holds_a_batch_until_it_is_removed() {
    let mut live = plain(|dir| {
        git(dir, &["init", "-q"]);
        write(dir, "a", "old");
        write(dir, ".git/index.lock", "");
    });
    write(&live.root, "a", "new");
    let mut quiet = live.watcher.quiet();
    // Until the event was seen, and is gathered.
    let pending = |live: &mut Live| {
        let deadline = Instant::now() + crate::harness::DEADLINE;
        while !live.watcher.quiet().activity().pending {
            assert!(Instant::now() < deadline, "the save is not seen");
            std::thread::yield_now();
        }
    };
    pending(&mut live);
    live.rt.block_on(async {
        let quiet = quiet.wait(Duration::from_millis(20));
        assert!(
            tokio::time::timeout(Duration::from_millis(200), quiet).await.is_err(),
            "a restart may not be made"
        );
    });
    assert!(live.changes.try_recv().is_err());
    fs::remove_file(live.root.join(".git/index.lock")).expect("remove");
    live.until(|tree| holds(tree, "a", "new"));
}

#[test]
fn a_root_that_vanishes_is_said_and_found_again() {
    let mut live = Live::start("root", RuleOptions::default(), |d| write(d, "root/a", "1"));
    let away = live.dir.path().join("away");
    fs::rename(&live.root, &away).expect("rename");
    while !live.notes.contains(&Note::RootLost) {
        let change = live.receive();
        assert!(matches!(live.scanner.refresh(&change, &live.tree), Err(ScanError::RootLost(_))));
    }
    fs::rename(&away, &live.root).expect("rename");
    while !live.notes.contains(&Note::RootBack) {
        live.receive();
    }
    write(&live.root, "a", "2");
    live.until(|tree| holds(tree, "a", "2"));
}

#[test]
fn more_events_than_the_system_holds_lead_to_a_rescan() {
    let mut live = plain(|d| write(d, "d/f", ""));
    let max: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .ok()
        .and_then(|v| v.trim().parse().ok())
        .unwrap_or(16_384);
    // Enough threads that the reader falls behind; two names in turn, so that the kernel cannot merge events.
    let rounds = max.min(40_000);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let root = live.root.clone();
            scope.spawn(move || {
                for i in 0..rounds / 4 {
                    let from = root.join(format!("d/{t}-{}", i % 2));
                    fs::write(&from, "x").expect("write");
                    fs::rename(from, root.join(format!("d/{t}-r{}", i % 3))).expect("rename");
                }
            });
        }
    });
    write(&live.root, "e/g", "after");
    live.settle();
    live.assert_true();
    write(&live.root, "e/g", "still watched");
    live.until(|tree| holds(tree, "e/g", "still watched"));
}

#[test]
fn a_burst_in_one_directory_becomes_its_rescan() {
    let mut live = plain(|d| write(d, "gen/keep", ""));
    for i in 0..2_000 {
        fs::write(live.root.join(format!("gen/f{i}")), "x").expect("write");
    }
    let mut rescans = 0;
    while live.tree.0.len() < 2_002 {
        let (change, _) = live.next();
        rescans += usize::from(matches!(change.rescan, Some(Rescan::Dirs(_))));
    }
    assert!(rescans > 0);
    live.settle();
    live.assert_true();
}

#[test]
fn a_single_file_in_a_directory_that_is_made_anew_is_followed() {
    let options = RuleOptions {
        includes: vec![rel("target/release/app")],
        only_includes: true,
        ..RuleOptions::default()
    };
    let mut live = Live::start("", options, |d| write(d, "target/release/app", "1"));
    write(&live.root, "src/main.rs", "");
    write(&live.root, "target/release/deps/x", "");
    write(&live.root, "target/release/app", "2");
    let (change, _) = live.next();
    assert_eq!(shown(&change), ["target/release/app"]);
    fs::remove_dir_all(live.root.join("target/release")).expect("remove");
    write(&live.root, "target/release/app", "3");
    live.until(|tree| holds(tree, "target/release/app", "3"));
    write(&live.root, "target/release/app", "4");
    live.until(|tree| holds(tree, "target/release/app", "4"));
}
