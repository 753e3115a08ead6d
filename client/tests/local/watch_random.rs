//! Property: whatever is done to the files, the tree that follows the changes is the tree that is there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use devsync_cli::local::RuleOptions;
use proptest::prelude::*;

use crate::harness::{Live, cases, write};

#[derive(Debug, Clone)]
enum Op {
    Write(String, u8),
    Append(String),
    Mkdir(String),
    Remove(String),
    Rename(String, String),
    Chmod(String, bool),
    Link(String),
    Save(String, u8),
    Ignore(String, String),
    /// Lets what was done so far be seen first.
    Pause,
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..5).prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (path(), any::<u8>()).prop_map(|(p, n)| Op::Write(p, n)),
        2 => path().prop_map(Op::Append),
        3 => path().prop_map(Op::Mkdir),
        4 => path().prop_map(Op::Remove),
        5 => (path(), path()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => (path(), any::<bool>()).prop_map(|(p, x)| Op::Chmod(p, x)),
        1 => path().prop_map(Op::Link),
        3 => (path(), any::<u8>()).prop_map(|(p, n)| Op::Save(p, n)),
        1 => (path(), "!?[abc]/?").prop_map(|(p, rule)| Op::Ignore(p, rule)),
        1 => Just(Op::Pause),
    ]
}

/// Does what can be done; what cannot (a file where a directory is needed) is no matter.
fn apply(root: &Path, op: &Op) {
    let at = |p: &str| root.join(p);
    let _ = match op {
        Op::Write(p, n) => {
            at(p).parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(at(p), [*n; 9]))
        }
        Op::Append(p) => fs::OpenOptions::new()
            .append(true)
            .open(at(p))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"more")),
        Op::Mkdir(p) => fs::create_dir_all(at(p)),
        Op::Remove(p) => fs::remove_dir_all(at(p)).or_else(|_| fs::remove_file(at(p))),
        Op::Rename(a, b) => fs::rename(at(a), at(b)),
        Op::Chmod(p, x) => {
            let mode = if *x { 0o755 } else { 0o700 };
            match fs::symlink_metadata(at(p)) {
                Ok(meta) if !meta.is_symlink() => {
                    fs::set_permissions(at(p), fs::Permissions::from_mode(mode))
                }
                _ => Ok(()),
            }
        }
        Op::Link(p) => symlink("a", at(p)),
        Op::Save(p, n) => {
            let temp = at(&format!("{p}.tmp"));
            fs::write(&temp, [*n; 5])
                .and_then(|()| fs::rename(&temp, at(p)))
                .or_else(|_| fs::remove_file(&temp))
        }
        Op::Ignore(p, rule) => match at(p).is_dir() {
            true => fs::write(at(p).join(".gitignore"), rule),
            false => Ok(()),
        },
        Op::Pause => Ok(()),
    };
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn changes_lead_to_the_tree_that_is_there(ops in prop::collection::vec(op(), 1..80)) {
        let mut live = Live::start("", RuleOptions::default(), |d| {
            write(d, "kept/file", "so that the root is never empty");
            write(d, "a/b/c", "1");
            write(d, "b/a", "2");
        });
        for op in &ops {
            match op {
                Op::Pause => live.settle(),
                op => apply(&live.root, op),
            }
        }
        live.settle();
        live.assert_true();
    }
}
