//! The agent serves on a port, with OpenSSH's keys: nothing is trusted that was not given.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::App;
use devsync_tests::attach::Attach;

use crate::rig::{Rig, ask, target};

/// An agent that serves one app, and can be ended and started again where it was.
pub(crate) struct Server {
    agent: Child,
    /// Its address as it says it.
    target: String,
    /// Its known_hosts line.
    host_key: String,
    identity: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn keygen(path: &Path) -> Result<()> {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    Ok(())
}

impl Server {
    pub(crate) fn start(rig: &Rig, app: &App) -> Result<Server> {
        let identity = rig.other("id");
        keygen(&identity)?;
        let (agent, target, host_key) = spawn(rig, app, &identity, "127.0.0.1:0")?;
        Ok(Server { agent, target, host_key, identity })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.target.strip_prefix("ssh/").context("an address")?.parse()?)
    }

    pub(crate) fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.agent.wait()?;
        Ok(())
    }

    /// Another one at the same address, with the state that the first one left.
    pub(crate) fn restart(&mut self, rig: &Rig, app: &App) -> Result<()> {
        let address = self.address()?.to_string();
        (self.agent, _, _) = spawn(rig, app, &self.identity, &address)?;
        Ok(())
    }

    /// `devsync attach` there; returns at once.
    pub(crate) fn attach(&self, rig: &Rig, more: &[&str]) -> Result<Attach> {
        self.attach_through(rig, &self.target, more)
    }

    /// The same by another address.
    pub(crate) fn attach_through(&self, rig: &Rig, target: &str, more: &[&str]) -> Result<Attach> {
        let identity = self.identity.to_str().context("a name")?;
        let login = ["attach", target, "--identity", identity, "--host-key", &self.host_key];
        rig.attach_by(&[&login[..], more].concat())
    }
}

fn spawn(rig: &Rig, app: &App, identity: &Path, listen: &str) -> Result<(Child, String, String)> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(rig.devsync.programs.join("devsync-agent"));
    command.args(["serve", "--listen", listen, "--target", &target(app), "--authorized-keys"]);
    command.arg(identity.with_extension("pub")).arg("--state").arg(rig.other("agent"));
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = agent.stdout.take().context("stdout is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut said = || {
        let first = lines.next().context("the agent says nothing")??;
        let address = first.strip_prefix("# listening on ").and_then(|rest| rest.split(',').next());
        let target = format!("ssh/{}", address.with_context(|| first.clone())?);
        anyhow::Ok((target, lines.next().context("no host key")??))
    };
    match said() {
        Ok((target, host_key)) => Ok((agent, target, host_key)),
        Err(error) => {
            agent.kill()?;
            agent.wait()?;
            Err(error)
        }
    }
}

#[test]
#[ignore = "needs: root"]
fn a_save_over_ssh_is_served() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let identity = server.identity.to_str().context("a name")?;
    let login = [server.target.as_str(), "--identity", identity, "--host-key", &server.host_key];
    let mut attach = rig.attach_by(&[&["attach"][..], &login].concat())?;
    attach.first_sync()?;
    rig.save("two")?;
    let restarted = attach.event("restarted")?;
    ensure!(restarted["old_pid"] == restarted["new_pid"], "{restarted}");
    attach.event("ready")?;
    ensure!(ask(&app)?.starts_with("two "));
    rig.run(&["verify"])?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    fs::write(rig.pod.join("app.py"), crate::rig::source("three"))?;
    rig.run(&[&["restart"][..], &login].concat())?.code(0)?;
    ensure!(ask(&app)?.starts_with("three "));
    rig.run(&[&["verify"][..], &login].concat())?.code(1)?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn who_is_not_known_gets_nothing() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    rig.save("two")?;
    let identity = server.identity.to_str().context("a name")?;
    let stranger = rig.other("stranger");
    keygen(&stranger)?;
    let other_key = fs::read_to_string(stranger.with_extension("pub"))?;
    let attach = |identity: &str, host_key: &str| {
        let words = [&server.target, "--identity", identity, "--host-key", host_key, "--once"];
        rig.run(&[&["attach"][..], &words].concat())
    };
    attach(identity, &other_key)?.code(1)?.says(&["error: ", "has host key SHA256:", "hint: "])?;
    let stranger = stranger.to_str().context("a name")?;
    attach(stranger, &server.host_key)?.code(1)?.says(&["error: ", stranger, "hint: "])?;
    attach(identity, "nonsense")?.code(2)?.says(&["nonsense", "hint: "])?;
    fs::set_permissions(identity, fs::Permissions::from_mode(0o644))?;
    attach(identity, &server.host_key)?.code(1)?.says(&[identity, &format!("chmod 600 {identity}")])?;
    fs::remove_file(identity)?;
    attach(identity, &server.host_key)?.code(1)?.says(&["error: ", identity])?;
    rig.run(&["attach", &server.target])?.code(2)?.says(&["--identity", "hint: "])?;
    assert_eq!(fs::read_to_string(rig.pod.join("app.py"))?, crate::rig::source("one"));
    ensure!(ask(&app)?.starts_with("one "));
    Ok(())
}
