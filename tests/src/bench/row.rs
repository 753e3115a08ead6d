//! The rows of the benchmark: one function each, which measures everybody in that row.

mod idle;
mod relink;
mod restart;
mod save;
mod sftp;
mod tree;
mod webhook;

use std::path::Path;

use anyhow::Result;

use super::Bench;
use super::figure::Figure;

/// A row and how it is measured.
pub struct Row {
    pub name: &'static str,
    /// Whom the others are compared with in the table.
    pub base: &'static str,
    pub measure: fn(&Bench) -> Result<Vec<Figure>>,
}

/// All rows in the order in which they run.
pub const ROWS: &[Row] = &[
    Row { name: "initial", base: "rsync", measure: tree::initial },
    Row { name: "reattach", base: "rsync", measure: tree::reattach },
    Row { name: "save", base: "inotifywait+rsync", measure: save::save },
    Row { name: "relink", base: "rsync", measure: relink::relink },
    Row { name: "restart", base: "rsync+kill", measure: restart::restart },
    Row { name: "idle", base: "", measure: idle::idle },
    Row { name: "sftp-put", base: "sshd", measure: sftp::put },
    Row { name: "sftp-get", base: "sshd", measure: sftp::get },
    Row { name: "sftp-mput", base: "sshd", measure: sftp::put_many },
    Row { name: "sftp-mget", base: "sshd", measure: sftp::get_many },
    Row { name: "webhook", base: "", measure: webhook::webhook },
];

/// The arguments that sync `from` to `to` and restart nothing.
fn sync(from: &Path, to: &Path) -> Vec<String> {
    let pair = format!("{}:{}", from.display(), to.display());
    ["--sync", &pair, "--restart", "none"].map(str::to_string).to_vec()
}

/// `path/`, which means the content of the directory to cp and rsync.
fn content(path: &Path, end: &str) -> String {
    format!("{}/{end}", path.display())
}
