//! The set of watched directories: one watch for each that counts, polling where the system has none left.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devsync_protocol::path::RelPath;
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Note;
use super::events::Sink;
use super::poll::Poller;
use crate::local::gitdir::Repo;
use crate::local::platform::{self, RECURSIVE_WATCH};
use crate::local::rules::Rules;

pub(crate) struct Dirs {
    root: PathBuf,
    rules: Arc<Rules>,
    sink: Sink,
    /// `None` where the system has no instance left: everything is polled.
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<Option<RelPath>>,
    pub(crate) poller: Poller,
    /// The lock files that hold batches.
    pub(crate) locks: Vec<PathBuf>,
    gitdirs: HashSet<PathBuf>,
    limit_said: bool,
    notes: Vec<Note>,
}

impl Dirs {
    pub(crate) fn new(root: &Path, rules: Arc<Rules>, sink: Sink) -> Self {
        Self {
            root: root.to_path_buf(),
            rules,
            sink,
            watcher: None,
            watched: HashSet::new(),
            poller: Poller::new(root),
            locks: Vec::new(),
            gitdirs: HashSet::new(),
            limit_said: false,
            notes: Vec::new(),
        }
    }

    /// Sets all watches afresh, as at the start and after lost events.
    pub(crate) fn reset(&mut self) {
        self.watched.clear();
        self.gitdirs.clear();
        self.locks.clear();
        self.poller.clear();
        // The old instance goes first: its watches count against the same limit.
        self.watcher = None;
        match RecommendedWatcher::new(self.sink.clone(), notify::Config::default()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => self.say_limit("fs.inotify.max_user_instances", &error),
        }
        if let Some(repo) = Repo::around(&self.root) {
            self.add_repo(&repo);
        }
        self.add_tree(None);
    }

    /// Notes since the last call.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Watches `dir` and all directories below it that count; each is listed after its watch is set.
    pub(crate) fn add_tree(&mut self, dir: Option<RelPath>) {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            self.add(dir.clone());
            let here = self.rules.dir(dir.as_ref());
            let Ok(entries) = std::fs::read_dir(platform::absolute(&self.root, dir.as_ref())) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if name == ".git"
                    && let Some(repo) = Repo::at(&platform::absolute(&self.root, dir.as_ref()))
                {
                    self.add_repo(&repo);
                }
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                let Some(name) = platform::name_bytes(&name) else { continue };
                let path = dir.as_ref().map_or_else(|| RelPath::new(name), |d| d.join(name));
                if let Ok(path) = path
                    && !self.rules.entry(&here, &path, true).is_hidden()
                {
                    todo.push(Some(path));
                }
            }
        }
    }

    /// Forgets `dir` and all below it: the system's watches went with the name.
    pub(crate) fn forget(&mut self, dir: &RelPath) {
        if self.watched.remove(&Some(dir.clone())) || self.poller.has(dir) {
            self.watched.retain(|d| !d.as_ref().is_some_and(|d| d.is_within(dir)));
            self.poller.forget(dir);
        }
    }

    /// Takes the watches off what does not count any more.
    pub(crate) fn drop_hidden(&mut self) {
        let rules = self.rules.clone();
        let hidden = |d: &Option<RelPath>| d.as_ref().is_some_and(|d| rules.verdict(d, true).is_hidden());
        let gone: Vec<_> = self.watched.iter().filter(|d| hidden(d)).cloned().collect();
        for dir in gone {
            if let Some(watcher) = &mut self.watcher
                && !RECURSIVE_WATCH
            {
                // Fails where the directory is gone too, and its watch with it.
                let _ = watcher.unwatch(&platform::absolute(&self.root, dir.as_ref()));
            }
            self.watched.remove(&dir);
        }
        self.poller.retain(|dir| !hidden(&dir.cloned()));
    }

    fn add(&mut self, dir: Option<RelPath>) {
        let mode = match RECURSIVE_WATCH {
            true if dir.is_some() => return,
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let abs = platform::absolute(&self.root, dir.as_ref());
        let Some(watcher) = &mut self.watcher else { return self.poller.add(dir) };
        match watcher.watch(&abs, mode) {
            Ok(()) => {
                self.watched.insert(dir);
            }
            Err(error) if is_limit(&error) => {
                self.say_limit("fs.inotify.max_user_watches", &error);
                self.poller.add(dir);
            }
            // Gone again: its event follows.
            Err(_) if !abs.is_dir() => {}
            Err(error) => {
                self.notes.push(Note::PolledInstead { dir: abs, cause: error.to_string() });
                self.poller.add(dir);
            }
        }
    }

    fn add_repo(&mut self, repo: &Repo) {
        if !self.gitdirs.insert(repo.gitdir.clone()) {
            return;
        }
        self.locks.push(repo.index_lock());
        if let Some(watcher) = &mut self.watcher {
            // Without this watch the lock is looked for when a batch is due, and the batch waits a little longer.
            let _ = watcher.watch(&repo.gitdir, RecursiveMode::NonRecursive);
        }
    }

    fn say_limit(&mut self, sysctl: &'static str, error: &notify::Error) {
        if !std::mem::replace(&mut self.limit_said, true) {
            let value = platform::watch_limit(sysctl);
            self.notes.push(Note::WatchLimit { sysctl, value, cause: error.to_string() });
        }
    }
}

fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(error) => platform::is_watch_limit(error),
        _ => false,
    }
}
