//! A directory that is watched, and the tree that its changes make.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use devsync_cli::local::index::Index;
use devsync_cli::local::{Change, Note, Rescan, RuleOptions, Rules, Scan, Scanner, Timing, Update, Watcher};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Node, Tree};
use proptest::prelude::ProptestConfig;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn rel(path: &str) -> RelPath {
    RelPath::new(path).expect("valid path")
}

pub(crate) fn names(tree: &Tree) -> Vec<String> {
    tree.0.keys().map(ToString::to_string).collect()
}

pub(crate) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
    fs::write(path, content).expect("write");
}

pub(crate) fn git(dir: &Path, args: &[&str]) {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "gc.auto=0",
        ])
        .args(args)
        .current_dir(dir)
        .output()
        .expect("git runs");
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

pub(crate) fn scanner(root: &Path, options: RuleOptions) -> Scanner {
    let root = root.canonicalize().expect("root");
    Scanner::with(root.clone(), Arc::new(Rules::new(&root, options)), Index::default())
}

pub(crate) fn scan(root: &Path, options: RuleOptions) -> Scan {
    scanner(root, options).scan().expect("scan")
}

/// Runs the test `name` of this executable again under `launcher`, which is given the command as arguments.
pub(crate) fn rerun(name: &str, launcher: &mut Command) {
    let out = launcher
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env("DEVSYNC_TEST_RERUN", name)
        .output()
        .expect("the launcher runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// True in the process that [`rerun`] started.
pub(crate) fn is_rerun(name: &str) -> bool {
    std::env::var("DEVSYNC_TEST_RERUN").is_ok_and(|n| n == name)
}

/// So many cases for a property, or as many as PROPTEST_CASES says.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let config =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: usual, ..config },
    }
}

/// A watched directory; removed at the end.
pub(crate) struct Live {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) options: RuleOptions,
    pub(crate) scanner: Scanner,
    pub(crate) watcher: Watcher,
    pub(crate) changes: Receiver<Change>,
    pub(crate) tree: Tree,
    pub(crate) notes: Vec<Note>,
    pub(crate) rt: Runtime,
    markers: u32,
}

impl Live {
    /// `below` names the root in a new directory, which `prepare` fills first.
    pub(crate) fn start(below: &str, options: RuleOptions, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path().canonicalize().expect("real").join(below);
        fs::create_dir_all(&root).expect("root");
        prepare(dir.path());
        let mut scanner = scanner(&root, options.clone());
        let (watcher, changes) =
            Watcher::start(scanner.root(), scanner.rules().clone(), Timing::default()).expect("watch");
        let tree = scanner.scan().expect("scan").tree;
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let root = scanner.root().to_path_buf();
        Self { dir, root, options, scanner, watcher, changes, tree, notes: Vec::new(), rt, markers: 0 }
    }

    /// The next change, and what it means for the tree.
    pub(crate) fn next(&mut self) -> (Change, Update) {
        let change = self.receive();
        let update = self.scanner.refresh(&change, &self.tree).expect("refresh");
        update.apply_to(&mut self.tree);
        (change, update)
    }

    pub(crate) fn receive(&mut self) -> Change {
        let changes = &mut self.changes;
        let next = self.rt.block_on(async { tokio::time::timeout(DEADLINE, changes.recv()).await });
        let change = next.expect("a change in time").expect("the watcher lives");
        self.notes.extend(change.notes.iter().cloned());
        change
    }

    /// Takes changes until `done` holds for the tree.
    pub(crate) fn until(&mut self, done: impl Fn(&Tree) -> bool) {
        while !done(&self.tree) {
            self.next();
        }
    }

    /// Takes all changes that what was done so far leads to.
    pub(crate) fn settle(&mut self) {
        self.markers += 1;
        let marker = rel(&format!("settled-{}", self.markers));
        fs::write(self.root.join(marker.to_string()), "").expect("marker");
        // Events keep their order, so that all others were seen once this one was.
        self.until(|tree| tree.0.contains_key(&marker));
        let mut quiet = self.watcher.quiet();
        self.rt
            .block_on(async { tokio::time::timeout(DEADLINE, quiet.wait(Duration::from_millis(25))).await })
            .expect("quiet in time");
        while let Ok(change) = self.changes.try_recv() {
            self.notes.extend(change.notes.iter().cloned());
            let update = self.scanner.refresh(&change, &self.tree).expect("refresh");
            update.apply_to(&mut self.tree);
        }
    }

    /// The tree that followed the changes must be the one that a fresh look finds.
    pub(crate) fn assert_true(&self) {
        let fresh = scan(&self.root, self.options.clone()).tree;
        let differ = |a: &Tree, b: &Tree| -> Vec<(String, Node)> {
            a.0.iter()
                .filter(|(p, n)| b.0.get(*p) != Some(n))
                .map(|(p, n)| (p.to_string(), n.clone()))
                .collect()
        };
        let (stale, missed) = (differ(&self.tree, &fresh), differ(&fresh, &self.tree));
        assert!(stale.is_empty() && missed.is_empty(), "stale: {stale:?}\nmissed: {missed:?}");
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.tree.0.contains_key(&rel(path))
    }
}

/// The paths of a change as text, those of rescans with a slash at the end.
pub(crate) fn shown(change: &Change) -> Vec<String> {
    let mut all: Vec<String> = change.paths.iter().map(ToString::to_string).collect();
    match &change.rescan {
        Some(Rescan::Everything) => all.push("/".to_owned()),
        Some(Rescan::Dirs(dirs)) => all.extend(dirs.iter().map(|d| format!("{d}/"))),
        None => {}
    }
    all
}
