//! The tools against pods: `exec`, `ssh-config`, `shell`, `debug`, `doctor`; what they share.

mod debug;
mod debugpy;
mod doctor;
mod exec;
mod host_key;
mod probes;
mod shell;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::namespace::{self, Namespace};

/// Runs a test in a namespace of its own.
fn in_namespace(test: impl FnOnce(&Namespace) -> Result<()>) -> Result<()> {
    namespace::with_namespace(programs()?, test)
}

/// The directory of the programs of this build: the one above this test's own.
fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let programs = test.ancestors().nth(2).context("a test lies in target/…/deps")?.to_owned();
    ensure!(programs.join("devsync").exists(), "no devsync here: cargo build --workspace --bins");
    Ok(programs)
}
