//! `ssh-config` and `proxy` with OpenSSH: the pinned key alone is accepted; `exec` and `shell` beside them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place};

use crate::rig::{Rig, both};

/// A program that lasts, in the machine's files.
fn app(rig: &Rig) -> Result<App> {
    App::start(&Place::Directory(rig.path("pod")), &["sh", "-c", "echo up; exec sleep 1000"], "up")
}

#[test]
#[ignore = "needs: root"]
fn ssh_accepts_the_pinned_key_and_no_other() -> Result<()> {
    let rig = Rig::new()?;
    let app = app(&rig)?;
    let target = format!("pid/{}", app.pid());
    let made = rig.command(&["ssh-config", &target]).output()?;
    ensure!(made.status.success() && both(&made).contains("Include"), "{}", both(&made));
    let host = format!("pid-{}.devsync", app.pid());
    let config = rig.state().join("ssh/config");
    let ssh = |config: &std::path::Path, words: &[&str]| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(config).arg(&host).args(words).stdin(Stdio::null());
        // The same home as the command that wrote the file.
        ssh.env("XDG_STATE_HOME", rig.path("home/state")).output()
    };
    let said = ssh(&config, &["id -u; exit 7"])?;
    ensure!(said.status.code() == Some(7) && both(&said).contains("65532"), "{}", both(&said));
    // Without the proxy's word the old pin stays, and this server has another key.
    let text = fs::read_to_string(&config)?;
    let stale = rig.path("stale");
    fs::write(&stale, text.replace(&format!("--alias {host} "), ""))?;
    let refused = ssh(&stale, &["echo let in"])?;
    ensure!(refused.status.code() == Some(255), "{}", both(&refused));
    ensure!(both(&refused).contains("Host key verification failed"), "{}", both(&refused));
    fs::remove_file(rig.state().join("ssh/known_hosts").join(&host))?;
    let unknown = ssh(&stale, &["echo let in"])?;
    ensure!(!both(&unknown).contains("let in\n") && unknown.status.code() == Some(255), "{}", both(&unknown));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn exec_and_shell_run_in_the_apps_world() -> Result<()> {
    let rig = Rig::new()?;
    let app = app(&rig)?;
    let target = format!("pid/{}", app.pid());
    let said = rig
        .command(&["exec", &target, "--", "sh", "-c", "echo out; echo err >&2; id -u; exit 3"])
        .output()?;
    ensure!(said.status.code() == Some(3), "{}", both(&said));
    ensure!(said.stdout == b"out\n65532\n" && said.stderr == b"err\n", "{}", both(&said));
    for (words, input, out) in [
        (&["exec", "-i", &target, "--", "wc", "-c"][..], "12345", "5\n"),
        (&["shell", &target], "echo $((6*7))\n", "42\n"),
    ] {
        let mut child = rig.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
        let said = child.wait_with_output()?;
        ensure!(said.status.success() && String::from_utf8_lossy(&said.stdout) == out, "{said:?}");
    }
    let gone = rig.command(&["exec", "pid/4194304", "--", "true"]).output()?;
    ensure!(gone.status.code() == Some(255), "{}", both(&gone));
    Ok(())
}
