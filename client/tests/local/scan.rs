//! Scans: what is found, what is skipped and said, what is read again.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use devsync_cli::local::guard::RootLost;
use devsync_cli::local::index::Index;
use devsync_cli::local::{Change, Rescan, RuleOptions, Rules, ScanError, Scanner, Why};
use devsync_protocol::digest::Digest;
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;

use crate::harness::{is_rerun, names, rel, rerun, scan, scanner, write};

fn everything() -> Change {
    Change { paths: [].into(), rescan: Some(Rescan::Everything), first_event: Instant::now(), notes: vec![] }
}

fn only(path: &str) -> Change {
    Change { paths: [rel(path)].into(), rescan: None, first_event: Instant::now(), notes: vec![] }
}

#[test]
fn files_directories_and_links_as_they_are() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "d/run", "#!");
    fs::set_permissions(dir.path().join("d/run"), fs::Permissions::from_mode(0o4750)).expect("chmod");
    symlink("../../outside", dir.path().join("d/link")).expect("symlink");
    symlink("d", dir.path().join("dirlink")).expect("symlink");
    let tree = scan(dir.path(), RuleOptions::default()).tree;
    assert_eq!(names(&tree), ["d", "d/link", "d/run", "dirlink"]);
    let file = Node::File { mode: 0o750, size: 2, digest: Digest::of(b"#!") };
    assert_eq!(tree.0.get(&rel("d/run")), Some(&file));
    assert_eq!(tree.0.get(&rel("d/link")), Some(&Node::Symlink { target: b"../../outside".to_vec() }));
}

#[test]
fn names_of_any_bytes_are_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    for name in [&b"\xff\xfe"[..], b"a\nb", b"\x1b[31m", b" ", b"-rf"] {
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").expect("write");
        let tree = scan(dir.path(), RuleOptions::default()).tree;
        assert!(tree.0.contains_key(&RelPath::new(name).expect("valid")), "{name:?}");
    }
}

#[test]
fn what_is_no_file_is_skipped_and_said_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    assert!(Command::new("mkfifo").arg(dir.path().join("fifo")).status().expect("mkfifo").success());
    let _socket = UnixListener::bind(dir.path().join("socket")).expect("bind");
    write(dir.path(), "file", "");
    let mut scanner = scanner(dir.path(), RuleOptions::default());
    let found = scanner.scan().expect("scan");
    assert_eq!(names(&found.tree), ["file"]);
    let said: Vec<_> = found.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["fifo: a FIFO cannot be synced", "socket: a socket cannot be synced"]);
    let update = scanner.refresh(&everything(), &found.tree).expect("refresh");
    assert!(update.skipped.is_empty() && update.is_empty());
}

#[test]
fn a_path_that_is_too_long_is_said_and_the_rest_is_synced() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "file", "");
    // Too long for one call: two halves, then one moved into the other.
    let half = |top: &str| format!("{top}/{}", vec!["x".repeat(200); 12].join("/"));
    write(dir.path(), &format!("{}/deep", half("b")), "");
    fs::create_dir_all(dir.path().join(half("a"))).expect("mkdir");
    fs::rename(dir.path().join("b"), dir.path().join(half("a")).join("b")).expect("rename");
    let found = scan(dir.path(), RuleOptions::default());
    assert!(names(&found.tree).contains(&"file".to_owned()));
    assert!(found.skipped.iter().any(|s| s.why == Why::TooLong), "{:?}", found.skipped);
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let cache = tempfile::tempdir().expect("temp dir");
    for i in 0..50 {
        write(dir.path(), &format!("d{}/f{i}", i % 5), format!("{i}"));
    }
    // Into the past, so that the clock's granularity does not matter.
    let root = dir.path().canonicalize().expect("real");
    let open = || {
        let rules = Arc::new(Rules::new(&root, RuleOptions::default()));
        Scanner::with(root.clone(), rules, Index::open_in(cache.path(), &root))
    };
    let deadline = Instant::now() + crate::harness::DEADLINE;
    let first = open().scan().expect("scan");
    assert_eq!(first.read, 50);
    while open().scan().expect("scan").read != 0 {
        assert!(Instant::now() < deadline, "the index never settles");
    }
    write(dir.path(), "d1/f1", "another");
    let again = open().scan().expect("scan");
    assert_eq!((again.read, again.tree.0.len()), (1, first.tree.0.len()));
    assert_eq!(again.tree, scan(dir.path(), RuleOptions::default()).tree);
}

#[test]
fn a_write_that_leaves_size_and_mtime_alone_is_seen() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut scanner = scanner(dir.path(), RuleOptions::default());
    let path = dir.path().join("f");
    for round in 0..200u32 {
        fs::write(&path, format!("{round:08}")).expect("write");
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.set_modified(std::time::UNIX_EPOCH).expect("utimes");
        let tree = scanner.scan().expect("scan").tree;
        let expected = Digest::of(format!("{round:08}").as_bytes());
        assert!(matches!(tree.0.get(&rel("f")), Some(Node::File { digest, .. }) if *digest == expected));
    }
}

#[test]
fn a_lost_root_is_an_error_and_never_a_delete() {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = dir.path().join("root");
    write(&root, "a", "");
    write(&root, "b/c", "");
    let mut scanner = scanner(&root, RuleOptions::default());
    let tree = scanner.scan().expect("scan").tree;
    let mut lost = |change: &Change| match scanner.refresh(change, &tree) {
        Err(ScanError::RootLost(lost)) => lost,
        other => panic!("{other:?}"),
    };
    fs::remove_dir_all(&root).expect("remove");
    assert!(matches!(lost(&only("a")), RootLost::Vanished { .. }));
    assert!(matches!(lost(&everything()), RootLost::Vanished { .. }));
    fs::write(&root, "").expect("write");
    assert!(matches!(lost(&everything()), RootLost::NotADirectory { .. }));
    fs::remove_file(&root).expect("remove");
    fs::create_dir(&root).expect("mkdir");
    assert!(matches!(lost(&everything()), RootLost::Emptied { had: 3, .. }));
    let missing = Scanner::open(&dir.path().join("none"), RuleOptions::default());
    assert!(matches!(missing, Err(ScanError::RootLost(RootLost::Vanished { .. }))));
}

#[test]
fn a_path_through_a_link_is_gone_not_followed() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "root/d/f", "in");
    write(dir.path(), "out/f", "out");
    let root = dir.path().join("root");
    let mut scanner = scanner(&root, RuleOptions::default());
    let mut tree = scanner.scan().expect("scan").tree;
    write(&root, "other", "");
    fs::remove_dir_all(root.join("d")).expect("remove");
    symlink("../out", root.join("d")).expect("symlink");
    let update = scanner.refresh(&only("d/f"), &tree).expect("refresh");
    assert_eq!(update.deleted, [rel("d/f")].into());
    update.apply_to(&mut tree);
    let update = scanner.refresh(&only("d"), &tree).expect("refresh");
    assert_eq!(update.changed.get(&rel("d")), Some(&Node::Symlink { target: b"../out".to_vec() }));
}

#[test]
fn a_rule_that_hides_a_file_does_not_delete_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), "a.log", "");
    write(dir.path(), "d/b.log", "");
    write(dir.path(), "keep", "");
    let mut scanner = scanner(dir.path(), RuleOptions::default());
    let mut tree = scanner.scan().expect("scan").tree;
    write(dir.path(), ".gitignore", "*.log\n");
    scanner.rules().invalidate();
    let update = scanner.refresh(&everything(), &tree).expect("refresh");
    assert_eq!(update.hidden, [rel("a.log"), rel("d/b.log")].into());
    assert!(update.deleted.is_empty());
    update.apply_to(&mut tree);
    assert_eq!(names(&tree), [".gitignore", "d", "keep"]);
}

/// Root reads everything, so this runs again without the capabilities that let it.
#[test]
#[ignore = "needs: root"]
fn what_cannot_be_read_is_said_and_never_deleted() {
    const NAME: &str = "scan::what_cannot_be_read_is_said_and_never_deleted";
    const WITHOUT: &str = "-dac_override,-dac_read_search";
    if !is_rerun(NAME) {
        let caps = [format!("--bounding-set={WITHOUT}"), format!("--inh-caps={WITHOUT}")];
        return rerun(NAME, Command::new("setpriv").args(caps));
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let root = dir.path();
    write(root, "closed/inside", "");
    write(root, "secret", "s");
    write(root, "open", "o");
    let tree = scan(root, RuleOptions::default()).tree;
    let chmod = |path: &str, mode| {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    chmod("secret", 0);
    chmod("closed", 0);
    let mut scanner = scanner(root, RuleOptions::default());
    let found = scanner.scan().expect("scan");
    assert_eq!(names(&found.tree), ["closed", "open"]);
    assert_eq!(found.skipped.len(), 2, "{:?}", found.skipped);
    assert!(found.is_unknown(&rel("closed/inside")) && found.is_unknown(&rel("secret")));
    assert!(!found.is_unknown(&rel("open")));
    for change in [everything(), only("closed/inside"), only("secret")] {
        let update = scanner.refresh(&change, &tree).expect("refresh");
        assert!(update.deleted.is_empty() && update.hidden.is_empty(), "{update:?}");
    }
    chmod("closed", 0o700);
}
