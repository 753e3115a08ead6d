//! The first sync of a tree into an empty directory, and the next one with nothing to do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{content, sync};
use crate::bench::Bench;
use crate::bench::contestant::{Contestant, count, measure, run};
use crate::bench::figure::Figure;
use crate::bench::trees::sorted_files;

type Times = (Vec<Duration>, Vec<u64>);

/// The first sync: an empty destination and a client that remembers nothing.
pub(super) fn initial(bench: &Bench) -> Result<Vec<Figure>> {
    let tree = &bench.tree;
    let mut figures = Vec::new();
    let (times, _) =
        into_empty(bench, |to| count(Command::new("cp").arg("-r").arg(content(tree, ".")).arg(to)))?;
    figures.push(Figure::new("initial", "cp", &times, &[]));
    let (times, wire) = into_empty(bench, |to| {
        let script = r#"set -o pipefail; tar -C "$1" -cf - . | $2 pod tar -C "$3" -xf -"#;
        let mut command = Command::new("bash");
        count(command.args(["-c", script, "bash"]).arg(tree).arg(bench.sshd.shell()).arg(to))
    })?;
    figures.push(Figure::new("initial", "tar-ssh", &times, &wire));
    let (times, wire) = into_empty(bench, |to| count(&mut rsync(bench, to)))?;
    figures.push(Figure::new("initial", "rsync", &times, &wire));
    for contestant in Contestant::both(bench, bench.app.pid())? {
        let (times, wire) = into_empty(bench, |to| {
            contestant.forget()?;
            contestant.once(&bench.work, &sync(tree, to))
        })?;
        figures.push(Figure::new("initial", contestant.who, &times, &wire));
    }
    Ok(figures)
}

/// The same command again.
pub(super) fn reattach(bench: &Bench) -> Result<Vec<Figure>> {
    let to = bench.fresh("pod/tree")?;
    run(&mut rsync(bench, &to))?;
    let (times, wire) = repeat(bench, || count(&mut rsync(bench, &to)))?;
    let mut figures = vec![Figure::new("reattach", "rsync", &times, &wire)];
    for contestant in Contestant::both(bench, bench.app.pid())? {
        let to = bench.fresh("pod/tree")?;
        let arguments = sync(&bench.tree, &to);
        contestant.once(&bench.work, &arguments)?;
        let (times, wire) = repeat(bench, || contestant.once(&bench.work, &arguments))?;
        figures.push(Figure::new("reattach", contestant.who, &times, &wire));
    }
    Ok(figures)
}

fn rsync(bench: &Bench, to: &Path) -> Command {
    let mut command = Command::new("rsync");
    command.args(["-a", "-e", &bench.sshd.shell(), &content(&bench.tree, "")]);
    command.arg(format!("pod:{}", content(to, "")));
    command
}

fn into_empty(bench: &Bench, mut work: impl FnMut(&Path) -> Result<u64>) -> Result<Times> {
    let expected = sorted_files(&bench.tree)?.len();
    let mut all = Times::default();
    for _ in 0..bench.runs {
        let to = bench.fresh("pod/tree")?;
        let (time, bytes) = measure(|| work(&to))?;
        let arrived = sorted_files(&to)?.len();
        ensure!(arrived == expected, "{arrived} of {expected} files arrived");
        all.0.push(time);
        all.1.push(bytes);
    }
    Ok(all)
}

fn repeat(bench: &Bench, mut work: impl FnMut() -> Result<u64>) -> Result<Times> {
    let mut all = Times::default();
    for _ in 0..bench.runs {
        let (time, bytes) = measure(&mut work)?;
        all.0.push(time);
        all.1.push(bytes);
    }
    Ok(all)
}
