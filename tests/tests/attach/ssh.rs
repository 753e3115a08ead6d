//! The agent serves on a port, with OpenSSH's keys: nothing is trusted that was not given.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::App;

use crate::rig::{Rig, ask, target};

struct Server {
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

fn serve(rig: &Rig, app: &App) -> Result<Server> {
    let identity = rig.other("id");
    keygen(&identity)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(rig.devsync.programs.join("devsync-agent"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--target", &target(app), "--authorized-keys"]);
    command.arg(identity.with_extension("pub")).arg("--state").arg(rig.other("agent"));
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = agent.stdout.take().context("stdout is piped")?;
    let mut server = Server { agent, target: String::new(), host_key: String::new(), identity };
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().context("the agent says nothing")??;
    let address = first.strip_prefix("# listening on ").and_then(|rest| rest.split(',').next());
    server.target = format!("ssh/{}", address.with_context(|| first.clone())?);
    server.host_key = lines.next().context("no host key")??;
    Ok(server)
}

#[test]
#[ignore = "needs: root"]
fn a_save_over_ssh_is_served() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let server = serve(&rig, &app)?;
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
    let server = serve(&rig, &app)?;
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
