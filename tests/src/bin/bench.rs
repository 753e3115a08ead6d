//! The benchmark's program; `scripts/bench` gives it namespaces, a tmpfs and what it compares.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use devsync_tests::bench::contestant::Sleeper;
use devsync_tests::bench::figure::{Figure, head};
use devsync_tests::bench::row::{ROWS, Row};
use devsync_tests::bench::sshd::Sshd;
use devsync_tests::bench::{Bench, trees};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments: an empty tmpfs; devsync's programs; a directory with `vendor`, `links` and `demo`; rows; `--json`.
fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut path =
        || arguments.next().map(PathBuf::from).context("usage: bench WORK PROGRAMS INPUTS [ROW…] [--json]");
    let (work, programs, inputs) = (path()?, path()?, path()?);
    let (mut rows, mut json) = (Vec::new(), false);
    for argument in arguments {
        // `sftp` is each row whose name begins so.
        let group = format!("{argument}-");
        let known = rows.len();
        rows.extend(ROWS.iter().filter(|row| row.name == argument || row.name.starts_with(&group)));
        match rows.len() > known {
            true => {}
            false if argument == "--json" => json = true,
            false => bail!("unknown row {argument:?}"),
        }
    }
    if rows.is_empty() {
        rows.extend(ROWS);
    }
    let bench = prepare(work, programs, &inputs)?;
    if !json {
        println!("{}", head());
    }
    for row in rows {
        let figures = (row.measure)(&bench).with_context(|| format!("row {}", row.name))?;
        print(row, &figures, json);
    }
    Ok(())
}

fn prepare(work: PathBuf, programs: PathBuf, inputs: &Path) -> Result<Bench> {
    let runs = std::env::var("BENCH_RUNS").unwrap_or_else(|_| "5".to_string());
    let runs: usize = runs.parse().with_context(|| format!("BENCH_RUNS={runs} is no number"))?;
    ensure!(runs >= 1, "BENCH_RUNS must be 1 or more");
    let tree = work.join("laptop/tree");
    let (files, bytes) = trees::trim(&inputs.join("vendor"), &tree)?;
    let take = |name: &str| -> Result<PathBuf> {
        let to = work.join(name.replace('/', "-"));
        std::fs::copy(inputs.join(name), &to).with_context(|| format!("copy {name}"))?;
        Ok(to)
    };
    let links = [take("links/first")?, take("links/second")?];
    let demo = [take("demo/first")?, take("demo/second")?];
    let linked = std::fs::metadata(&links[0])?.len();
    eprintln!(
        "bench: {files} files, {:.1} MB; an executable of {:.1} MB; {runs} runs",
        bytes as f64 / 1e6,
        linked as f64 / 1e6
    );
    let sshd = Sshd::start(&work.join("sshd"))?;
    let app = Sleeper::start(&work)?;
    Ok(Bench { work, programs, tree, links, demo, runs, sshd, app })
}

fn print(row: &Row, figures: &[Figure], json: bool) {
    let base = figures.iter().find(|figure| figure.who == row.base).map(Figure::median);
    for figure in figures {
        println!("{}", if json { figure.json() } else { figure.line(base) });
    }
}
