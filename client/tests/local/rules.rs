//! Rules: git is the oracle for ignore files; tables for the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use devsync_cli::local::{RuleOptions, Rules, Verdict};
use proptest::prelude::*;

use crate::harness::{cases, git, names, rel, scan, write};

/// All paths below `root` but git's, with whether each is a directory.
fn all_paths(root: &Path) -> Vec<(String, bool)> {
    let options = RuleOptions { no_ignore_files: true, ..RuleOptions::default() };
    let tree = scan(root, options).tree;
    tree.0.iter().map(|(path, node)| (String::from_utf8_lossy(path).into_owned(), node.is_dir())).collect()
}

fn ignored_by_git(root: &Path, paths: &[(String, bool)]) -> BTreeSet<String> {
    let mut child = Command::new("git")
        .args(["check-ignore", "--no-index", "-z", "--stdin"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = paths.iter().map(|(p, _)| format!("{p}\0")).collect::<String>();
    let feed = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().expect("git ends");
    feed.join().expect("fed").expect("written");
    assert!(out.status.code().is_some_and(|c| c < 2));
    out.stdout
        .split(|&b| b == 0)
        .filter(|p| !p.is_empty())
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect()
}

fn ignored_by_us(root: &Path, paths: &[(String, bool)]) -> BTreeSet<String> {
    let root = root.canonicalize().expect("real");
    let rules = Rules::new(&root, RuleOptions::default());
    paths.iter().filter(|(p, dir)| rules.verdict(&rel(p), *dir).is_hidden()).map(|(p, _)| p.clone()).collect()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[abc]{1,2}",
        1 => "[ab]\\.[ox]",
        1 => Just("a b".to_owned()),
        1 => Just("a ".to_owned()),
        1 => Just("!a".to_owned()),
        1 => Just("#b".to_owned()),
        1 => Just("[a]".to_owned()),
        1 => Just("a*".to_owned()),
        1 => Just("{a,b}".to_owned()),
        1 => Just("é".to_owned()),
    ]
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => name(),
        2 => Just("*".to_owned()),
        2 => Just("**".to_owned()),
        2 => "[abc?*]{1,3}",
        1 => "\\[[!^]?[abc-]{1,3}\\][abc]?",
        1 => "\\\\[abc!#]",
        1 => Just("[[:alpha:]]*".to_owned()),
        1 => Just("*.o".to_owned()),
        1 => "[ab]\\*\\*[ab]?",
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    let body = prop::collection::vec(piece(), 1..4).prop_map(|p| p.join("/"));
    ("!?", "/?", body, "/?", " {0,1}")
        .prop_map(|(not, lead, body, trail, space)| format!("{not}{lead}{body}{trail}{space}"))
}

fn ignore_file() -> impl Strategy<Value = String> {
    let line = prop_oneof![12 => pattern(), 1 => Just(String::new()), 1 => Just("# a".to_owned())];
    (prop::collection::vec(line, 0..6), "(\n|\r\n)").prop_map(|(lines, end)| lines.join(&end))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..5).prop_map(|p| p.join("/"))
}

/// Makes as much of the tree as does not contradict itself.
fn make(root: &Path, paths: &[String]) {
    for path in paths {
        let path = root.join(path);
        if let Some(parent) = path.parent()
            && fs::create_dir_all(parent).is_ok()
            && !path.exists()
        {
            fs::write(path, "").expect("write");
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn ignores_what_git_ignores(
        paths in prop::collection::vec(path(), 1..25),
        files in prop::collection::vec((prop::option::of(path()), ignore_file()), 1..4),
        exclude in ignore_file(),
    ) {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path();
        git(root, &["init", "-q", "--template="]);
        make(root, &paths);
        fs::create_dir_all(root.join(".git/info")).expect("mkdir");
        fs::write(root.join(".git/info/exclude"), &exclude).expect("write");
        for (at, text) in &files {
            let at = root.join(at.as_deref().unwrap_or(""));
            if at.is_dir() {
                fs::write(at.join(".gitignore"), text).expect("write");
            }
        }
        let all = all_paths(root);
        prop_assert_eq!(ignored_by_us(root, &all), ignored_by_git(root, &all), "{:?} {:?}", files, exclude);
    }
}

#[test]
fn a_root_below_the_repositorys_top_obeys_the_files_above_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let top = dir.path();
    git(top, &["init", "-q"]);
    write(top, ".gitignore", "*.log\n/app/out\nweb/\n");
    write(top, "a/.gitignore", "ignored\n");
    write(top, ".git/info/exclude", "/app/private\n");
    for path in ["app/x.log", "app/out", "app/web/a", "app/private", "app/src/out", "app/keep"] {
        write(top, path, "");
    }
    assert_eq!(names(&scan(&top.join("app"), RuleOptions::default()).tree), ["keep", "src", "src/out"]);
}

#[test]
fn a_root_that_its_repository_ignores_was_named_and_so_counts() {
    for rule in ["dist\n", "dist/\n", "dist/*\n", "/out/dist/**\n", "out\n"] {
        let dir = tempfile::tempdir().expect("temp dir");
        git(dir.path(), &["init", "-q"]);
        write(dir.path(), ".gitignore", rule);
        write(dir.path(), "out/dist/a.js", "");
        write(dir.path(), "dist/a.js", "");
        let root = dir.path().join(if rule.contains("out") { "out/dist" } else { "dist" });
        assert_eq!(names(&scan(&root, RuleOptions::default()).tree), ["a.js"], "{rule}");
    }
}

#[test]
fn git_and_our_own_temporary_files_never_count() {
    let dir = tempfile::tempdir().expect("temp dir");
    git(dir.path(), &["init", "-q"]);
    write(dir.path(), "a/.devsync-0123456789abcdef", "");
    write(dir.path(), "a/.devsync-notours", "");
    write(dir.path(), "sub/.git", "gitdir: ../.git\n");
    assert_eq!(names(&scan(dir.path(), RuleOptions::default()).tree), ["a", "a/.devsync-notours", "sub"]);
    let with = RuleOptions { with_git: true, ..RuleOptions::default() };
    assert!(names(&scan(dir.path(), with).tree).contains(&".git/HEAD".to_owned()));
}

#[test]
fn excludes_mean_what_they_mean_to_rsync() {
    let paths = ["a.o", "d/a.o", "build/x", "d/build/y", "d/e/f", "e/f", "top", "d/top", "z/q.tmp/in", "r"];
    for excludes in [
        &["*.o"][..],
        &["build/"],
        &["e/f"],
        &["/top"],
        &["/d/*"],
        &["**/in"],
        &["q.tm?"],
        &["[er]"],
        &["/d/", "!a", "#b"],
        &["d/**"],
    ] {
        let dir = tempfile::tempdir().expect("temp dir");
        for path in paths {
            write(dir.path(), path, "");
        }
        let options = RuleOptions {
            excludes: excludes.iter().map(|e| (*e).to_owned()).collect(),
            ..RuleOptions::default()
        };
        let ours: BTreeSet<_> = names(&scan(dir.path(), options).tree).into_iter().collect();
        let out = Command::new("rsync")
            .args(["-r", "--list-only"])
            .args(excludes.iter().filter(|e| !e.starts_with(['!', '#'])).map(|e| format!("--exclude={e}")))
            .arg(format!("{}/", dir.path().display()))
            .output()
            .expect("rsync runs");
        let text = String::from_utf8_lossy(&out.stdout);
        let theirs: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(4))
            .filter(|name| *name != ".")
            .map(str::to_owned)
            .collect();
        assert_eq!(ours, theirs, "{excludes:?}");
    }
}

#[test]
fn what_is_named_explicitly_counts_although_it_is_ignored() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), ".gitignore", "target/\n*.pyc\n");
    for path in ["target/release/app", "target/release/other", "target/debug/app", "src/a", "dist/a.pyc"] {
        write(dir.path(), path, "");
    }
    let includes = vec![rel("target/release/app")];
    let options = RuleOptions { includes: includes.clone(), ..RuleOptions::default() };
    let expected = [".gitignore", "dist", "src", "src/a", "target", "target/release", "target/release/app"];
    assert_eq!(names(&scan(dir.path(), options).tree), expected);
    let only = RuleOptions { includes, only_includes: true, ..RuleOptions::default() };
    assert_eq!(names(&scan(dir.path(), only).tree), ["target", "target/release", "target/release/app"]);
    let whole = RuleOptions { includes: vec![rel("target")], only_includes: true, ..RuleOptions::default() };
    assert_eq!(names(&scan(dir.path(), whole).tree).len(), 6);
}

#[test]
fn devsyncignore_has_the_last_word_over_other_ignore_files() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), ".gitignore", "dist/\n");
    write(dir.path(), ".dockerignore", "dist\ndocs\n");
    write(dir.path(), ".devsyncignore", "!dist/\n*.map\n");
    for path in ["dist/a.js", "dist/a.map", "docs/x", "src/b"] {
        write(dir.path(), path, "");
    }
    let options = RuleOptions { excludes: vec![".*ignore".to_owned()], ..RuleOptions::default() };
    assert_eq!(names(&scan(dir.path(), options).tree), ["dist", "dist/a.js", "src", "src/b"]);
}

#[test]
fn dockerignore_may_bring_back_what_lies_in_a_hidden_directory() {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), ".dockerignore", "*\n!src\n!web/*.html\n");
    for path in ["src/a", "web/i.html", "web/i.js", "other/x", "top"] {
        write(dir.path(), path, "");
    }
    assert_eq!(names(&scan(dir.path(), RuleOptions::default()).tree), ["src", "src/a", "web", "web/i.html"]);
    let root = dir.path().canonicalize().expect("real");
    let rules = Rules::new(&root, RuleOptions::default());
    assert_eq!(rules.verdict(&rel("web"), true), Verdict::Pass);
    assert_eq!(rules.verdict(&rel("other"), true), Verdict::Hide);
}
