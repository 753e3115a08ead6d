//! The oracle: what our changes make of tree A is what `rsync -a --delete` makes of it, given tree B.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use devsync_protocol::chunk::Signature;
use devsync_protocol::delta::{Applier, Step, diff_content, diff_signature};
use devsync_protocol::digest::Digest;
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Node, Tree, root_digest};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a generated path is.
#[derive(Debug, Clone)]
enum Thing {
    File { seed: u8, len: usize, edit: Option<usize>, mode: u16 },
    Dir { mode: u16 },
    Link { target: String },
}

type Things = BTreeMap<String, Thing>;

fn thing() -> impl Strategy<Value = Thing> {
    let file = (
        0u8..4,
        0usize..200_000,
        prop::option::of(any::<usize>()),
        prop::sample::select(&[0o644, 0o755, 0o600][..]),
    )
        .prop_map(|(seed, len, edit, mode)| Thing::File { seed, len, edit, mode });
    prop_oneof![
        4 => file,
        1 => prop::sample::select(&[0o755, 0o700][..]).prop_map(|mode| Thing::Dir { mode }),
        1 => prop::sample::select(&["a", "../b", "/nowhere", "a/b"][..])
            .prop_map(|target| Thing::Link { target: target.into() }),
    ]
}

/// A tree in which whatever has something below it is a directory.
fn things() -> impl Strategy<Value = Things> {
    vec(("[abc](/[abc]){0,2}", thing()), 0..10).prop_map(|list| {
        let mut things = Things::from_iter(list);
        let parents: Vec<String> =
            things.keys().flat_map(|p| p.match_indices('/').map(|(i, _)| p[..i].to_owned())).collect();
        for parent in parents {
            let thing = things.entry(parent).or_insert(Thing::Dir { mode: 0o755 });
            if !matches!(thing, Thing::Dir { .. }) {
                *thing = Thing::Dir { mode: 0o755 };
            }
        }
        things
    })
}

/// A tree and what becomes of it: some paths renamed, some changed to another thing, some gone, some new.
fn trees() -> impl Strategy<Value = (Things, Things)> {
    (things(), things(), any::<u64>()).prop_map(|(a, other, keep)| {
        let mut b = other;
        for (i, (path, thing)) in a.iter().enumerate() {
            let roots = !path.contains('/') && !matches!(thing, Thing::Dir { .. });
            match keep >> (i % 32 * 2) & 3 {
                0 if roots => drop(b.insert(format!("moved-{path}"), thing.clone())),
                1 if roots && !b.keys().any(|p| p.starts_with(path.as_str())) => {
                    drop(b.insert(path.clone(), thing.clone()))
                }
                _ => {}
            }
        }
        (a, b)
    })
}

fn content(seed: u8, len: usize, edit: Option<usize>) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    if let Some(at) = edit.filter(|_| len > 0) {
        bytes.splice(at % len..at % len, *b"an insertion");
    }
    bytes
}

fn write_tree(root: &Path, things: &Things) -> io::Result<()> {
    for (path, thing) in things {
        let path = root.join(path);
        match thing {
            Thing::Dir { .. } => fs::create_dir(&path)?,
            Thing::Link { target } => symlink(target, &path)?,
            Thing::File { seed, len, edit, mode } => {
                fs::write(&path, content(*seed, *len, *edit))?;
                fs::set_permissions(&path, PermissionsExt::from_mode(u32::from(*mode)))?;
            }
        }
    }
    for (path, thing) in things.iter().rev() {
        if let Thing::Dir { mode } = thing {
            fs::set_permissions(root.join(path), PermissionsExt::from_mode(u32::from(*mode)))?;
        }
    }
    Ok(())
}

fn read_tree(root: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let mode = (meta.permissions().mode() & 0o777) as u16;
            let node = if meta.is_dir() {
                dirs.push(path.clone());
                Node::Dir { mode }
            } else if meta.is_symlink() {
                Node::Symlink { target: fs::read_link(&path)?.as_os_str().as_bytes().to_vec() }
            } else {
                let bytes = fs::read(&path)?;
                Node::File { mode, size: bytes.len() as u64, digest: Digest::of(&bytes) }
            };
            tree.0.insert(RelPath::new(path.strip_prefix(root)?.as_os_str().as_bytes())?, node);
        }
    }
    Ok(tree)
}

fn at(root: &Path, path: &RelPath) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// Makes the tree at `to` what `from` is, by the trees' difference and deltas.
fn sync(from: &Path, to: &Path) -> Result {
    let (wanted, have) = (read_tree(from)?, read_tree(to)?);
    let differs = |path: &RelPath, node: &Node| match (have.0.get(path), node) {
        (Some(Node::Dir { .. }), Node::Dir { .. }) => false,
        (there, _) => there != Some(node),
    };
    for (path, node) in have.0.iter().rev() {
        let other_kind =
            wanted.0.get(path).is_none_or(|w| std::mem::discriminant(w) != std::mem::discriminant(node));
        match node {
            Node::Dir { .. } if other_kind => fs::remove_dir(at(to, path))?,
            _ if other_kind => fs::remove_file(at(to, path))?,
            _ => {}
        }
    }
    for (path, node) in wanted.0.iter().filter(|(path, node)| differs(path, node)) {
        let place = at(to, path);
        match node {
            Node::Dir { .. } => fs::create_dir(&place)?,
            Node::Symlink { target } => {
                let _ = fs::remove_file(&place);
                symlink(std::ffi::OsStr::from_bytes(target), &place)?;
            }
            Node::File { mode, .. } => {
                let new = fs::read(at(from, path))?;
                let base = if place.exists() { fs::read(&place)? } else { Vec::new() };
                fs::write(&place, patched(&place, &base, &new)?)?;
                fs::set_permissions(&place, PermissionsExt::from_mode(u32::from(*mode)))?;
            }
        }
    }
    for (path, node) in wanted.0.iter().rev() {
        if let Node::Dir { mode } = node {
            fs::set_permissions(at(to, path), PermissionsExt::from_mode(u32::from(*mode)))?;
        }
    }
    Ok(())
}

/// The new version as a delta makes it of the file at `place`, by both ways to encode one.
fn patched(place: &Path, base: &[u8], new: &[u8]) -> Result<Vec<u8>> {
    let file = (!base.is_empty()).then(|| fs::File::open(place)).transpose()?;
    let mut results = Vec::new();
    for by_content in [true, false] {
        let mut steps = Vec::new();
        let push = |step: Step| {
            steps.push(step);
            Ok::<(), io::Error>(())
        };
        if by_content {
            diff_content(base, new, push)?
        } else {
            diff_signature(&Signature::of(base), new, push)?
        }
        let mut applier = Applier::new(base.len() as u64, new.len() as u64);
        let mut made = Vec::new();
        for step in &steps {
            let read = |at: u64, into: &mut [u8]| match &file {
                Some(file) => file.read_exact_at(into, at),
                None if into.is_empty() => Ok(()),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            applier.step(step, read, |bytes| {
                made.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        applier.finish()?;
        results.push(made);
    }
    assert!(results[0] == results[1]);
    Ok(results.swap_remove(0))
}

fn rsync(from: &Path, to: &Path) -> Result {
    // Sizes and times of generated trees coincide, so contents are compared.
    let output = Command::new("rsync")
        .args(["-a", "--delete", "--checksum", "--no-whole-file"])
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

fn compare(a: &Things, b: &Things) -> Result {
    let temp = tempfile::tempdir()?;
    let [source, ours, theirs] = ["source", "ours", "theirs"].map(|name| temp.path().join(name));
    for (root, things) in [(&source, b), (&ours, a), (&theirs, a)] {
        fs::create_dir(root)?;
        write_tree(root, things)?;
    }
    sync(&source, &ours)?;
    rsync(&source, &theirs)?;
    let (ours, theirs) = (read_tree(&ours)?, read_tree(&theirs)?);
    assert_eq!(ours, theirs);
    assert_eq!(root_digest(&ours.dir_digests()), root_digest(&theirs.dir_digests()));
    assert_eq!(ours, read_tree(&source)?);
    Ok(())
}

#[test]
#[ignore = "needs: rsync"]
fn our_changes_make_what_rsync_makes() -> Result {
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&trees(), |(a, b)| compare(&a, &b).map_err(|error| TestCaseError::fail(error.to_string())))?;
    Ok(())
}

#[test]
#[ignore = "needs: rsync"]
fn a_file_becomes_a_directory_and_the_other_way_round() -> Result {
    let file = |seed| Thing::File { seed, len: 100_000, edit: None, mode: 0o644 };
    let dir = || Thing::Dir { mode: 0o755 };
    let link = || Thing::Link { target: "x".into() };
    let of = |list: [(&str, Thing); 4]| Things::from(list.map(|(p, t)| (p.to_owned(), t)));
    let a = of([("x", file(1)), ("y", dir()), ("y/deep", file(2)), ("z", link())]);
    let b = of([("x", dir()), ("x/deep", file(1)), ("y", link()), ("z", file(3))]);
    compare(&a, &b)?;
    compare(&b, &a)
}
