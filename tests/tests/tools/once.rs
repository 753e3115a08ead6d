//! `devsync debug --stacks`, `--core` and `--strace` of a FROM-scratch app: one look, after which it serves on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::App;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Rig, both, succeeds};

fn serves_free(app: &App) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", app.pid()))?;
    ensure!(status.contains("TracerPid:\t0\n"), "{status}");
    ensure!(app.client().get("/add/2/3")?.contains("2 + 3 = 5"));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn stacks_of_all_threads_are_shown_once() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let target = format!("pid/{}", app.pid());
    let shown =
        succeeds(&mut rig.command(&["debug", &target, "--stacks", "--symbols", &symbols.to_string_lossy()]))?;
    let said = both(&shown);
    ensure!(said.contains("Thread 1") && said.contains("adder::main"), "{said}");
    serves_free(&app)
}

#[test]
#[ignore = "needs: root"]
fn a_core_file_is_written_here_and_gdb_reads_it() -> Result<()> {
    let rig = Rig::new()?;
    let symbols = rig.rust()?;
    let app = rig.start(&symbols)?;
    let (target, core) = (format!("pid/{}", app.pid()), rig.path("core"));
    let words =
        ["debug", &target, "--core", &core.to_string_lossy(), "--symbols", &symbols.to_string_lossy()];
    succeeds(&mut rig.command(&words))?;
    serves_free(&app)?;
    // It holds what the app holds, and is not written over.
    ensure!(fs::metadata(&core)?.permissions().mode() & 0o777 == 0o600, "others can read it");
    let again = rig.command(&words).output()?;
    ensure!(again.status.code() == Some(2) && both(&again).contains("hint: name a file"), "{}", both(&again));
    let mut gdb = Command::new("gdb");
    gdb.args(["-batch", "-nx", "-ex", "thread apply all backtrace"]).arg(&symbols).arg(&core);
    let said = both(&succeeds(&mut gdb)?);
    ensure!(said.contains("adder::main"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn system_calls_are_shown_until_it_is_left() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.start(&rig.rust()?)?;
    let mut command = rig.command(&["debug", &format!("pid/{}", app.pid()), "--strace"]);
    let mut strace = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(strace.stdout.take().context("piped")?).lines();
    let mut seen = String::new();
    let mut asked = false;
    while !seen.contains("GET /add/2/3") {
        let line = lines.next().with_context(|| format!("it ended after:\n{seen}"))??;
        seen.push_str(&line);
        if !std::mem::replace(&mut asked, true) {
            ensure!(app.client().get("/add/2/3")?.contains("2 + 3 = 5"));
        }
    }
    kill(Pid::from_raw(i32::try_from(strace.id())?), Signal::SIGINT)?;
    ensure!(strace.wait()?.success(), "ended after:\n{seen}");
    serves_free(&app)
}
