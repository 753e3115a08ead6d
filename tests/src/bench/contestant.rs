//! How the programs that are compared are run: devsync over a pipe and over its SSH server, and its rivals.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Bench;
use super::watch::loopback_bytes;
use crate::attach::{Attach, Devsync};

/// A process that does nothing, for devsync to attach to.
#[derive(Debug)]
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts it in `directory`.
    pub fn start(directory: &Path) -> Result<Sleeper> {
        let mut command = Command::new("sleep");
        Ok(Sleeper(command.arg("infinity").current_dir(directory).spawn().context("start sleep")?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell pipeline that goes on until it is dropped.
#[derive(Debug)]
pub struct Loop(Child);

impl Loop {
    /// Starts `script` with its arguments, in a process group of its own.
    pub fn start(script: &str, arguments: &[&str]) -> Result<Loop> {
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).args(arguments).process_group(0).stdin(Stdio::null());
        Ok(Loop(command.spawn().context("start bash")?))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

/// devsync against one process, over a pipe or over SSH.
#[derive(Debug)]
pub struct Contestant {
    /// Its name in the figures.
    pub who: &'static str,
    devsync: Devsync,
    target: Vec<String>,
    server: Option<Child>,
}

impl Contestant {
    /// `devsync attach pid/N`: the agent is a child of the client.
    pub fn piped(bench: &Bench, pid: u32) -> Result<Contestant> {
        let devsync = Devsync::new(bench.programs.clone(), bench.fresh("home")?)?;
        Ok(Contestant { who: "devsync", devsync, target: vec![format!("pid/{pid}")], server: None })
    }

    /// `devsync attach ssh/…`: an agent serves on loopback, as in a pod.
    pub fn over_ssh(bench: &Bench, pid: u32) -> Result<Contestant> {
        let home = bench.fresh("home-ssh")?;
        let mut command = Command::new(bench.programs.join("devsync-agent"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--target", &format!("pid/{pid}"), "--state"]);
        command.arg(bench.fresh("state-ssh")?).arg("--authorized-keys");
        command.arg(bench.sshd.identity.with_extension("pub")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = command.spawn().context("start devsync-agent serve")?;
        let said = BufReader::new(server.stdout.take().context("stdout is piped")?);
        let (address, key) = announced(said)?;
        let identity = bench.sshd.identity.display().to_string();
        let target = vec![format!("ssh/{address}"), "--identity".into(), identity, "--host-key".into(), key];
        let devsync = Devsync::new(bench.programs.clone(), home)?;
        Ok(Contestant { who: "devsync-ssh", devsync, target, server: Some(server) })
    }

    /// Both of them.
    pub fn both(bench: &Bench, pid: u32) -> Result<[Contestant; 2]> {
        Ok([Contestant::piped(bench, pid)?, Contestant::over_ssh(bench, pid)?])
    }

    /// A configuration in `directory` with which stock SSH clients reach the server as `pod`.
    pub fn stock(&self, directory: &Path) -> Result<PathBuf> {
        let [address, _, identity, _, key] = &self.target[..] else { bail!("it serves no SSH") };
        let (host, port) = address.trim_start_matches("ssh/").split_once(':').context("HOST:PORT")?;
        let (known, config) = (directory.join("known_hosts"), directory.join("ssh_config"));
        fs::write(&known, format!("[{host}]:{port} {key}\n"))?;
        let text = format!(
            "Host pod\n  HostName {host}\n  Port {port}\n  User dev\n  IdentityFile {identity}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n",
            known.display()
        );
        fs::write(&config, text)?;
        Ok(config)
    }

    /// `devsync attach TARGET more…` in `project`.
    pub fn command(&self, project: &Path, more: &[String]) -> Command {
        let mut arguments = vec!["attach".to_string()];
        arguments.extend(self.target.iter().chain(more).cloned());
        self.devsync.command(project, &arguments)
    }

    /// Runs it once to its end; returns the bytes that travelled.
    pub fn once(&self, project: &Path, more: &[String]) -> Result<u64> {
        let bytes = loopback_bytes()?;
        let mut command = self.command(project, more);
        let output = command.args(["--once", "--output", "json"]).output().context("start devsync")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "devsync attach --once ended with {}: {said}", output.status);
        if self.server.is_some() {
            return Ok(loopback_bytes()? - bytes);
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(own_count).sum())
    }

    /// The bytes of each batch of a session that has run: what was seen on loopback, or over a pipe, where nobody
    /// else can count, what the client says of each.
    pub fn wire(&self, seen: Vec<u64>, attach: &Attach) -> Vec<u64> {
        if self.server.is_some() {
            return seen;
        }
        attach.events.try_iter().filter_map(|line| own_count(&line)).collect()
    }

    /// Starts it to go on.
    pub fn attach(&self, project: &Path, more: &[String]) -> Result<Attach> {
        let mut command = self.command(project, more);
        command.args(["--output", "json"]);
        Attach::start(command)
    }

    /// Forgets what the client remembers of former runs.
    pub fn forget(&self) -> Result<()> {
        for directory in ["cache", "state"] {
            let path = self.devsync.home.join(directory);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// The agent's process: the server, or the client's child.
    pub fn agent(&self, attach: &Attach) -> Result<u32> {
        if let Some(server) = &self.server {
            return Ok(server.id());
        }
        let client = attach.pid();
        for thread in fs::read_dir(format!("/proc/{client}/task"))? {
            let children = fs::read_to_string(thread?.path().join("children"))?;
            if let Some(child) = children.split_whitespace().next() {
                return Ok(child.parse()?);
            }
        }
        bail!("devsync (process {client}) has no agent")
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Reads what a starting agent prints: `# listening on ADDRESS, …`, then a line of a known_hosts file.
fn announced(mut said: impl BufRead) -> Result<(String, String)> {
    let mut line = String::new();
    let mut address = None;
    while said.read_line(&mut line)? > 0 {
        if let Some(rest) = line.strip_prefix("# listening on ") {
            address = rest.split(',').next().map(|address| address.trim().to_string());
        }
        if let (Some(address), Some(at)) = (&address, line.find("ssh-ed25519 ")) {
            return Ok((address.clone(), line[at..].trim().to_string()));
        }
        line.clear();
    }
    bail!("devsync-agent serve ended before it said where it listens")
}

/// `wire_bytes` of a `synced` event.
fn own_count(line: &str) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    (event["event"] == "synced").then(|| event["wire_bytes"].as_u64())?
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(())
}

/// The time that `work` takes, and what it returns: the bytes that travelled.
pub fn measure(work: impl FnOnce() -> Result<u64>) -> Result<(Duration, u64)> {
    let begin = Instant::now();
    let bytes = work()?;
    Ok((begin.elapsed(), bytes))
}

/// Runs a command that must succeed; returns the bytes that it moved over loopback.
pub fn count(command: &mut Command) -> Result<u64> {
    let bytes = loopback_bytes()?;
    run(command)?;
    Ok(loopback_bytes()? - bytes)
}
