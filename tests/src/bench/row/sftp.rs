//! OpenSSH's sftp with the agent and with sshd, each with its defaults: a large file and many small ones, both ways.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bench::Bench;
use crate::bench::contestant::{Contestant, count, measure, run};
use crate::bench::figure::Figure;
use crate::bench::sshd::Sshd;
use crate::bench::trees::sorted_files;

const LARGE: u64 = 200_000_000;
const MANY: usize = 5_000;
/// As Debian's sshd_config has it.
const SUBSYSTEM: &str = "Subsystem sftp /usr/lib/openssh/sftp-server\n";

/// A large file to the server.
pub(super) fn put(bench: &Bench) -> Result<Vec<Figure>> {
    let (file, to) = (large(bench)?, bench.work.join("pod/sftp"));
    let batch = format!("put {} {}/\n", file.display(), to.display());
    both(bench, "sftp-put", &to, &batch)
}

/// The same from it.
pub(super) fn get(bench: &Bench) -> Result<Vec<Figure>> {
    let (file, to) = (large(bench)?, bench.work.join("laptop/sftp"));
    let batch = format!("get {} {}/\n", file.display(), to.display());
    both(bench, "sftp-get", &to, &batch)
}

/// Many small files to the server.
pub(super) fn put_many(bench: &Bench) -> Result<Vec<Figure>> {
    let (from, to) = (many(bench)?, bench.work.join("pod/sftp"));
    let batch = format!("put -r {} {}/\n", from.display(), to.display());
    both(bench, "sftp-mput", &to, &batch)
}

/// The same from it.
pub(super) fn get_many(bench: &Bench) -> Result<Vec<Figure>> {
    let (from, to) = (many(bench)?, bench.work.join("laptop/sftp"));
    let batch = format!("get -r {} {}/\n", from.display(), to.display());
    both(bench, "sftp-mget", &to, &batch)
}

/// Of bytes that nobody can compress.
fn large(bench: &Bench) -> Result<PathBuf> {
    let file = bench.fresh("large")?.join("file");
    let script = format!("head -c {LARGE} /dev/urandom >\"$1\"");
    run(Command::new("sh").args(["-c", &script, "sh"]).arg(&file))?;
    Ok(file)
}

/// Sources of the tree, in one directory.
fn many(bench: &Bench) -> Result<PathBuf> {
    let directory = bench.fresh("many")?;
    for (n, file) in sorted_files(&bench.tree)?.iter().take(MANY).enumerate() {
        fs::copy(file, directory.join(format!("{n}.rs")))?;
    }
    Ok(directory)
}

fn both(bench: &Bench, row: &'static str, to: &Path, batch: &str) -> Result<Vec<Figure>> {
    let script = bench.work.join("batch");
    fs::write(&script, batch)?;
    let expected = sorted_files(&bench.work.join(if row.contains("-m") { "many" } else { "large" }))?.len();
    let sshd = Sshd::with(&bench.fresh("sshd-sftp")?, SUBSYSTEM)?;
    let agent = Contestant::over_ssh(bench, bench.app.pid())?;
    let stock = agent.stock(&bench.fresh("stock")?)?;
    let mut figures = Vec::new();
    for (who, config) in [("sshd", &sshd.config), ("devsync-agent", &stock)] {
        let (mut times, mut wire): (Vec<Duration>, Vec<u64>) = Default::default();
        for _ in 0..bench.runs {
            if to.exists() {
                fs::remove_dir_all(to)?;
            }
            fs::create_dir_all(to)?;
            let mut sftp = Command::new("sftp");
            sftp.arg("-F").arg(config).arg("-b").arg(&script).arg("pod");
            let (time, bytes) = measure(|| count(&mut sftp))?;
            let arrived = sorted_files(to)?;
            ensure!(arrived.len() == expected, "{} of {expected} files arrived", arrived.len());
            let large = row.contains("-m") || fs::metadata(&arrived[0])?.len() == LARGE;
            ensure!(large, "the file did not arrive whole");
            times.push(time);
            wire.push(bytes);
        }
        figures.push(Figure::new(row, who, &times, &wire));
    }
    fs::remove_dir_all(to)?;
    Ok(figures)
}
