//! The benchmark: devsync and its rivals on the same trees in the same run, on tmpfs, over loopback.
//! Times are taken outside of the programs that are measured: at the exit of a command, or where a watcher sees
//! the new content in place. `scripts/bench` gives it namespaces and a tmpfs of its own.

pub mod contestant;
pub mod figure;
pub mod row;
pub mod sshd;
pub mod trees;
pub mod watch;

use std::path::PathBuf;

use anyhow::Result;

use contestant::Sleeper;
use sshd::Sshd;

/// Everything that rows share.
#[derive(Debug)]
pub struct Bench {
    /// A tmpfs that is empty at the start.
    pub work: PathBuf,
    /// The directory of devsync's programs.
    pub programs: PathBuf,
    /// Files of many crates, as `cargo vendor` leaves them.
    pub tree: PathBuf,
    /// One program linked twice, with a small change between.
    pub links: [PathBuf; 2],
    /// The demo's program built twice, with different answers.
    pub demo: [PathBuf; 2],
    /// Repetitions of a row that takes long; quick rows repeat more often.
    pub runs: usize,
    pub sshd: Sshd,
    /// A process for devsync to attach to where none is restarted.
    pub app: Sleeper,
}

impl Bench {
    /// Makes an empty directory of this name on the tmpfs, in place of what was there.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let directory = self.work.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}
