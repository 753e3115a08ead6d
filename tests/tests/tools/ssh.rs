//! `ssh-config` and `proxy` with OpenSSH: the pinned key alone is accepted; `exec` and `shell` beside them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place};

use crate::rig::{Rig, both, succeeds};

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
    let missing = rig.command(&["exec", &target, "--", "no-such-program", "127"]).output()?;
    ensure!(missing.status.code() == Some(255), "{}", both(&missing));
    for words in ["has no program no-such-program that can be run", "neither in the app's PATH nor", "hint:"]
    {
        ensure!(both(&missing).contains(words), "{}", both(&missing));
    }
    // A program's own 127 is its own, and its words come as they are.
    let words = ["exec", &target, "--", "sh", "-c", "printf '%s|' \"$@\"; exit 127", "x", "a b", "", "$HOME"];
    let own = rig.command(&words).output()?;
    ensure!(own.status.code() == Some(127) && own.stdout == b"a b||$HOME|", "{}", both(&own));
    let gone = rig.command(&["exec", "pid/4194304", "--", "true"]).output()?;
    ensure!(gone.status.code() == Some(255), "{}", both(&gone));
    Ok(())
}

/// An agent that serves on a port, with the person's key.
struct Server {
    agent: Child,
    target: String,
    host_key: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

impl Server {
    fn start(rig: &Rig, app: &App) -> Result<Server> {
        succeeds(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(rig.path("id")),
        )?;
        let programs = std::env::current_exe()?;
        let agent = programs.ancestors().nth(2).context("target/…/deps")?.join("devsync-agent");
        let mut serve = Command::new("setpriv");
        serve.args(["--pdeathsig", "KILL", "--"]).arg(agent).args(["serve", "--listen", "127.0.0.1:0"]);
        serve.arg("--target").arg(format!("pid/{}", app.pid())).arg("--state").arg(rig.path("agent"));
        serve.arg("--authorized-keys").arg(rig.path("id.pub"));
        let mut agent = serve.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(agent.stdout.take().context("piped")?).lines();
        let mut server = Server { agent, target: String::new(), host_key: String::new() };
        let first = lines.next().context("the agent says nothing")??;
        let address = first.strip_prefix("# listening on ").and_then(|rest| rest.split(',').next());
        server.target = format!("ssh/{}", address.with_context(|| first.clone())?);
        server.host_key = lines.next().context("no host key")??;
        Ok(server)
    }
}

#[test]
#[ignore = "needs: root"]
fn an_agent_that_is_reached_by_its_address_runs_programs_for_the_persons_key() -> Result<()> {
    let rig = Rig::new()?;
    let app = app(&rig)?;
    let server = Server::start(&rig, &app)?;
    let identity = rig.path("id");
    let identity = identity.to_str().context("a name")?;
    let login = ["--identity", identity, "--host-key", &server.host_key];
    let words = |first: &str, more: &[&'static str]| {
        let all = [&[first, &server.target], &login[..], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |words: &[String], input: &str| -> Result<std::process::Output> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = rig
            .command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    };
    let said = run(&words("exec", &["--", "sh", "-c", "id -u; exit 3"]), "")?;
    ensure!(said.status.code() == Some(3) && said.stdout == b"65532\n", "{}", both(&said));
    let said = run(&words("shell", &[]), "echo $((6*7)); exit 4\n")?;
    ensure!(said.status.code() == Some(4) && said.stdout == b"42\n", "{}", both(&said));
    let missing = run(&words("exec", &["--", "no-such-program"]), "")?;
    ensure!(missing.status.code() == Some(255), "{}", both(&missing));
    ensure!(both(&missing).contains("has no program no-such-program"), "{}", both(&missing));
    // Without the key, and with one that the agent was not given.
    let none =
        rig.command(&["exec", &server.target, "--host-key", &server.host_key, "--", "true"]).output()?;
    ensure!(none.status.code() == Some(255) && both(&none).contains("--identity FILE"), "{}", both(&none));
    let stranger = rig.path("stranger");
    succeeds(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger))?;
    let other = ["exec", &server.target, "--identity", stranger.to_str().context("a name")?, "--host-key"];
    let other = rig.command(&[&other[..], &[&server.host_key, "--", "true"]].concat()).output()?;
    ensure!(
        other.status.code() == Some(255) && both(&other).contains("does not accept the key"),
        "{}",
        both(&other)
    );
    Ok(())
}

/// A client of this machine that is no root, and has no capability: its agent cannot enter another root.
#[test]
#[ignore = "needs: root"]
fn a_shell_that_cannot_be_in_the_apps_root_is_beside_it_and_says_so() -> Result<()> {
    let rig = Rig::new()?;
    fs::write(rig.path("pod/page"), "of the app\n")?;
    let app = rig.start(&rig.rust()?)?;
    fs::create_dir(rig.path("toolbox"))?;
    fs::copy("/usr/bin/busybox", rig.path("toolbox/busybox")).context("busybox-static")?;
    succeeds(Command::new("chown").args(["-R", "65532:65532"]).arg(rig.path("home")))?;
    let (target, program) = (format!("pid/{}", app.pid()), rig.for_everybody()?);
    let unprivileged = |words: &[&str], toolbox: &str, input: &str| -> Result<std::process::Output> {
        let devsync = rig.command(words);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65532", "--regid", "65532", "--clear-groups", "--bounding-set=-all"]);
        // What is before the program ties its life to the test's.
        let words = devsync.get_args().skip_while(|word| *word != "--").skip(2);
        command.arg("--inh-caps=-all").args(["--pdeathsig", "TERM", "--"]).arg(&program).args(words);
        for (name, value) in devsync.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("DEVSYNC_TOOLBOX", rig.path(toolbox)).current_dir("/");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("piped")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    };
    let said = unprivileged(&["shell", &target], "toolbox", "cat page; test -e usr || echo none; exit 7\n")?;
    ensure!(said.status.code() == Some(7), "{}", both(&said));
    ensure!(said.stdout == b"of the app\nnone\n", "{}", both(&said));
    let note = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(
        note.starts_with("note: the agent may not enter the app's root") && note.lines().count() == 1,
        "{note}"
    );
    ensure!(note.contains("beside the app") && note.contains("$DEVSYNC_ROOT"), "{note}");
    let none = unprivileged(&["shell", &target], "nowhere", "pwd\n")?;
    ensure!(none.status.code() == Some(1) && none.stdout.is_empty(), "{}", both(&none));
    ensure!(both(&none).contains("no toolbox") && both(&none).contains("hint: "), "{}", both(&none));
    let exec = unprivileged(&["exec", &target, "--", "ls", "/"], "toolbox", "")?;
    ensure!(exec.status.code() == Some(255) && exec.stdout.is_empty(), "{}", both(&exec));
    ensure!(both(&exec).contains("SYS_CHROOT") && both(&exec).contains("devsync shell"), "{}", both(&exec));
    Ok(())
}
