//! A large debug executable is linked anew after a small change: until the new one is in place.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::sync;
use crate::bench::Bench;
use crate::bench::contestant::{Contestant, run};
use crate::bench::figure::Figure;
use crate::bench::trees::stage;
use crate::bench::watch::{Watch, loopback_bytes};

const FILE: &str = "program";

pub(super) fn relink(bench: &Bench) -> Result<Vec<Figure>> {
    let from = bench.fresh("laptop/linked")?.join(FILE);
    let mut figures = Vec::new();
    let shell = bench.sshd.shell();
    for (who, flags) in [("rsync", "-a"), ("rsync-z", "-az")] {
        let to = bench.fresh("pod/linked")?.join(FILE);
        let mut command = Command::new("rsync");
        command.args([flags, "-e", &shell]).arg(&from).arg(format!("pod:{}", to.display()));
        figures.push(commands(bench, who, &from, &to, || run(&mut command))?);
    }
    let to = bench.fresh("pod/linked")?.join(FILE);
    figures.push(commands(bench, "ssh-cat", &from, &to, || {
        let place = to.display();
        let mut ssh = bench.sshd.ssh();
        ssh.args(["pod", &format!("cat > {place}.new && chmod 755 {place}.new && mv {place}.new {place}")]);
        let status = ssh.stdin(Stdio::from(fs::File::open(&from)?)).status()?;
        ensure!(status.success(), "ssh cat ended with {status}");
        Ok(())
    })?);
    for contestant in Contestant::both(bench, bench.app.pid())? {
        figures.push(attached(bench, &contestant, &from)?);
    }
    Ok(figures)
}

/// Links, then a command that ends when the new executable is there.
fn commands(
    bench: &Bench,
    who: &'static str,
    from: &Path,
    to: &Path,
    mut command: impl FnMut() -> Result<()>,
) -> Result<Figure> {
    fs::copy(&bench.links[0], from)?;
    fs::copy(&bench.links[0], to)?;
    let (mut times, mut wire) = (Vec::new(), Vec::new());
    for turn in 1..=bench.runs {
        let link = &bench.links[turn % 2];
        let staged = stage(link, from)?;
        let bytes = loopback_bytes()?;
        let begin = Instant::now();
        fs::rename(staged, from)?;
        command()?;
        times.push(begin.elapsed());
        wire.push(loopback_bytes()? - bytes);
        ensure!(fs::read(to)? == fs::read(link)?, "{who} left another file");
    }
    Ok(Figure::new("relink", who, &times, &wire))
}

/// Links while devsync is attached; a watcher sees the new executable at its place.
fn attached(bench: &Bench, contestant: &Contestant, from: &Path) -> Result<Figure> {
    let to = bench.fresh("pod/linked")?.join(FILE);
    fs::copy(&bench.links[0], from)?;
    let laptop = from.parent().unwrap_or(from);
    let attach = contestant.attach(&bench.work, &sync(laptop, to.parent().unwrap_or(&to)))?;
    let watch = Watch::new(&to)?;
    watch.wait(&fs::read(&bench.links[0])?)?;
    let marker = laptop.join("marker");
    super::save::arrive(&marker, &to.with_file_name("marker"))?;
    // What was said about the first sync and the marker is not counted.
    while attach.events.try_recv().is_ok() {}
    let (mut times, mut wire) = (Vec::new(), Vec::new());
    for turn in 1..=bench.runs {
        let link = &bench.links[turn % 2];
        let wanted = fs::read(link)?;
        let staged = stage(link, from)?;
        let bytes = loopback_bytes()?;
        let begin = Instant::now();
        fs::rename(staged, from)?;
        times.push(watch.wait(&wanted)?.duration_since(begin));
        wire.push(loopback_bytes()? - bytes);
    }
    let wire = contestant.wire(wire, &attach);
    attach.stop()?;
    fs::remove_file(marker)?;
    Ok(Figure::new("relink", contestant.who, &times, &wire))
}
