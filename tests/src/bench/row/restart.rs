//! The demo's executable is replaced: until the running service answers with the new code.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::app::{App, Place};
use crate::bench::Bench;
use crate::bench::contestant::{Contestant, run};
use crate::bench::figure::Figure;
use crate::bench::trees::stage;
use crate::demo::project::Project;

const QUICK: usize = 4;
const PATH: &str = "/add/2/3";

pub(super) fn restart(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = vec![rival(bench)?];
    for over_ssh in [false, true] {
        let (from, root) = places(bench)?;
        let app = App::start(&Place::Root(root), &["/adder"], "adder ")?;
        let pid = u32::try_from(app.pid())?;
        let contestant =
            if over_ssh { Contestant::over_ssh(bench, pid)? } else { Contestant::piped(bench, pid)? };
        let arguments = ["--exe".to_string(), from.display().to_string()];
        let mut attach = contestant.attach(&bench.work, &arguments)?;
        attach.first_sync()?;
        let times = turns(bench, bench.runs * QUICK, &app, &from, || Ok(()))?;
        attach.stop()?;
        figures.push(Figure::new("restart", contestant.who, &times, &[]));
    }
    Ok(figures)
}

/// The service in a shell's loop: rsync, then the process is ended and the loop starts the new one.
fn rival(bench: &Bench) -> Result<Figure> {
    let (from, root) = places(bench)?;
    fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let script = "while :; do ./adder; done";
    let app = App::start(&Place::Directory(root.clone()), &["sh", "-c", script], "adder ")?;
    let to = format!("pod:{}", root.join("adder").display());
    let restart = format!("kill $(cat /proc/{0}/task/{0}/children)", app.pid());
    let times = turns(bench, bench.runs, &app, &from, || {
        // -I: two builds of one size within a second look the same to rsync's quick check.
        run(Command::new("rsync").args(["-aI", "-e", &bench.sshd.shell()]).arg(&from).arg(&to))?;
        run(bench.sshd.ssh().args(["pod", &restart]))
    })?;
    Ok(Figure::new("restart", "rsync+kill", &times, &[]))
}

/// The executable on the laptop's side, and the root of the service.
fn places(bench: &Bench) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let from = bench.fresh("laptop/demo/linked")?.join("adder");
    fs::copy(&bench.demo[0], &from)?;
    let root = bench.fresh("pod/root")?;
    fs::copy(&bench.demo[0], root.join("adder"))?;
    Ok((from, root))
}

fn turns(
    bench: &Bench,
    count: usize,
    app: &App,
    from: &Path,
    mut update: impl FnMut() -> Result<()> + Send,
) -> Result<Vec<Duration>> {
    let mut client = app.client();
    let mut times = Vec::new();
    for turn in 1..=count {
        let staged = stage(&bench.demo[turn % 2], from)?;
        let wanted = Project::answer(turn % 2);
        let begin = Instant::now();
        fs::rename(staged, from)?;
        update()?;
        let deadline = begin + Duration::from_secs(30);
        let ask = || {
            // While it restarts the connection is refused at once: a fine grain, and a core left to the others.
            let between = || {
                thread::sleep(Duration::from_micros(500));
                Ok(())
            };
            let seen = client.wait_for(PATH, &wanted, deadline, between);
            seen.map(|seen| (seen, client))
        };
        // A thread of its own, since asking moves the thread into the network of the service.
        let asked = thread::scope(|scope| scope.spawn(ask).join()).map_err(|_| anyhow!("asking panicked"))?;
        times.push(asked?.0.duration_since(begin));
        client = app.client();
    }
    Ok(times)
}
