//! Finds the git repository around a directory: its top, its git directory (worktrees and submodules too).
//!
//! Reads two small files; never runs git, never reads its index or configuration.

use std::path::{Path, PathBuf};

use super::ignorefile::read_bounded;
use super::platform;

/// A repository as far as its file locations matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repo {
    /// The directory that holds `.git`.
    pub(crate) top: PathBuf,
    /// Where this worktree's HEAD, index and `index.lock` are.
    pub(crate) gitdir: PathBuf,
    /// Where what all worktrees share is, `info/exclude` among it.
    pub(crate) common: PathBuf,
}

impl Repo {
    /// The repository whose worktree `dir` is the top of.
    pub(crate) fn at(dir: &Path) -> Option<Self> {
        let dot = dir.join(".git");
        let meta = std::fs::symlink_metadata(&dot).ok()?;
        let gitdir = if meta.is_file() { follow(&dot, dir, b"gitdir:")? } else { dot };
        if !gitdir.join("HEAD").exists() {
            return None;
        }
        let common = follow(&gitdir.join("commondir"), &gitdir, b"").unwrap_or_else(|| gitdir.clone());
        Some(Self { top: dir.to_path_buf(), gitdir, common })
    }

    /// The repository that `dir` lies in.
    pub(crate) fn around(dir: &Path) -> Option<Self> {
        dir.ancestors().find_map(Self::at)
    }

    /// The file that exists while git rewrites its index, and so while it changes the worktree.
    pub(crate) fn index_lock(&self) -> PathBuf {
        self.gitdir.join("index.lock")
    }

    pub(crate) fn info_exclude(&self) -> PathBuf {
        self.common.join("info").join("exclude")
    }
}

/// The path in a one-line file after `prefix`, relative to `base`.
fn follow(file: &Path, base: &Path, prefix: &[u8]) -> Option<PathBuf> {
    let text = read_bounded(file);
    let line = text.strip_prefix(prefix)?.trim_ascii();
    if line.is_empty() { None } else { Some(base.join(platform::bytes_to_path(line))) }
}
