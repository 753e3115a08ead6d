//! Systems that have no watch left: in user namespaces whose limits are small, so that nobody else is hit.

use std::process::Command;

use devsync_cli::local::{Note, RuleOptions};
use devsync_protocol::tree::Tree;

use crate::harness::{Live, is_rerun, rel, rerun, write};

/// Runs the test again in a user namespace with `limit` written.
fn in_namespace(name: &str, limit: &str) {
    let script = format!("{limit} && exec \"$0\" \"$@\"");
    rerun(name, Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &script]));
}

fn follows_changes(sysctl_wanted: &str) {
    let mut live = Live::start("", RuleOptions::default(), |d| {
        (0..20).for_each(|i| write(d, &format!("d{i}/sub/f"), "old"));
    });
    (0..20).for_each(|i| write(&live.root, &format!("d{i}/sub/f"), "new and longer"));
    write(&live.root, "d3/made/deep/f", "");
    std::fs::remove_file(live.root.join("d4/sub/f")).expect("remove");
    let size = |tree: &Tree, path: &str| match tree.0.get(&rel(path)) {
        Some(devsync_protocol::tree::Node::File { size, .. }) => *size,
        _ => 0,
    };
    live.until(|tree| {
        (0..20).all(|i| i == 4 || size(tree, &format!("d{i}/sub/f")) == 14)
            && tree.0.contains_key(&rel("d3/made/deep/f"))
            && !tree.0.contains_key(&rel("d4/sub/f"))
    });
    live.settle();
    let limits: Vec<_> =
        live.notes.iter().filter(|n| matches!(n, Note::WatchLimit { .. })).map(ToString::to_string).collect();
    assert_eq!(limits.len(), 1, "said once: {limits:?}");
    assert!(limits[0].contains(sysctl_wanted), "{limits:?}");
}

#[test]
#[ignore = "needs: root"]
fn without_watches_left_directories_are_polled() {
    const NAME: &str = "watch_limits::without_watches_left_directories_are_polled";
    if is_rerun(NAME) {
        return follows_changes("fs.inotify.max_user_watches");
    }
    in_namespace(NAME, "echo 6 > /proc/sys/user/max_inotify_watches");
}

#[test]
#[ignore = "needs: root"]
fn without_an_instance_left_everything_is_polled() {
    const NAME: &str = "watch_limits::without_an_instance_left_everything_is_polled";
    if is_rerun(NAME) {
        return follows_changes("fs.inotify.max_user_instances");
    }
    in_namespace(NAME, "echo 0 > /proc/sys/user/max_inotify_instances");
}
