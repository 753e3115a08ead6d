//! A serving agent, an app beside it, and developers' keys.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use devsync_protocol::contract::Authorized;
use tempfile::TempDir;

use crate::peer::{AGENT, Peer};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the test.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Sidecar {
    pub(crate) directory: TempDir,
    pub(crate) app: Ended,
    pub(crate) agent: Ended,
    /// What the log says.
    pub(crate) known_hosts: String,
}

impl Sidecar {
    pub(crate) fn start() -> Self {
        Self::with(Command::new(AGENT), &["--listen", "127.0.0.1:0"])
    }

    /// `command`: the agent, or something that ends in starting it.
    pub(crate) fn with(command: Command, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("temp directory");
        let app = Command::new("sleep").arg("1000").spawn().expect("an app");
        Self::serve(command, options, directory, Ended(app))
    }

    fn serve(mut command: Command, options: &[&str], directory: TempDir, app: Ended) -> Self {
        command.args(["serve", "--target", &format!("pid/{}", app.0.id()), "--state"]);
        command.arg(directory.path().join("state")).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut agent = Ended(command.spawn().expect("the agent"));
        let mut lines = BufReader::new(agent.0.stdout.take().expect("piped")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert!(first.starts_with("# listening on "), "{first}");
        let known_hosts = lines.next().expect("a line").expect("text");
        fs::write(directory.path().join("known_hosts"), &known_hosts).expect("written");
        Self { directory, app, agent, known_hosts }
    }

    /// Kills the agent and starts another with the same state.
    pub(crate) fn again(mut self) -> Self {
        self.agent.0.kill().expect("killed");
        self.agent.0.wait().expect("waited");
        let Self { directory, app, .. } = self;
        Self::serve(Command::new(AGENT), &["--listen", "127.0.0.1:0"], directory, app)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Makes a key pair and registers it.
    pub(crate) fn authorize(&self, name: &str, options: &[&str]) -> Authorized {
        self.keygen(name);
        let output = self.ask(Command::new(AGENT), name, options);
        answer(&output)
    }

    /// Runs `COMMAND authorize` for the key of this name, to its end.
    pub(crate) fn ask(&self, mut command: Command, name: &str, options: &[&str]) -> Output {
        let key = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("public key");
        command.args(["authorize", "--key", key.trim(), "--who", name]).args(options);
        command.arg("--state").arg(self.state()).output().expect("authorize runs")
    }

    pub(crate) fn keygen(&self, name: &str) {
        keygen(self.directory.path(), name);
    }

    /// The OpenSSH client that asks for the subsystem.
    pub(crate) fn ssh(&self, name: &str) -> Command {
        let port = self.known_hosts.split_once("]:").and_then(|(_, rest)| rest.split_once(' '));
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "100", "ssh", "-F", "none", "-p", port.expect("a port").0]);
        for option in
            ["BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none"]
        {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        command.args(["-o", "GlobalKnownHostsFile=none", "-i"]).arg(self.path(name));
        command.args(["-s", "me@127.0.0.1", "devsync"]);
        command
    }

    /// A session with the key of this name.
    pub(crate) fn attach(&self, name: &str) -> Peer {
        Peer::over(self.ssh(name))
    }

    /// Whether the key of this name opens a session.
    pub(crate) fn lets_in(&self, name: &str) -> bool {
        let output = self.ssh(name).stdin(Stdio::null()).output().expect("ssh");
        !output.stdout.is_empty()
    }
}

pub(crate) fn keygen(directory: &Path, name: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-C", name, "-t", "ed25519", "-f"]).arg(directory.join(name));
    assert!(command.status().expect("ssh-keygen").success());
}

pub(crate) fn answer(output: &Output) -> Authorized {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).parse().expect("an answer")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The end of a child that must come soon, and what it said on standard error.
pub(crate) fn end_of(mut child: Child) -> (std::process::ExitStatus, String) {
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).expect("read");
    }
    (status, text)
}
