//! A real OpenSSH server on loopback with its own keys and configuration, for the rivals.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Sshd {
    server: Child,
    /// For OpenSSH's clients; the host is `pod`.
    pub config: PathBuf,
    /// The client's private key; `.pub` beside it.
    pub identity: PathBuf,
    pub port: u16,
}

impl Sshd {
    /// Starts it with files in `directory`, and waits until it listens.
    pub fn start(directory: &Path) -> Result<Sshd> {
        Self::with(directory, "")
    }

    /// The same with more lines of sshd_config.
    pub fn with(directory: &Path, more: &str) -> Result<Sshd> {
        fs::create_dir_all(directory)?;
        fs::create_dir_all("/run/sshd")?;
        let identity = keygen(directory, "client")?;
        let host_key = keygen(directory, "host")?;
        fs::copy(identity.with_extension("pub"), directory.join("authorized_keys"))?;
        let port = free_port()?;
        let shown = directory.display();
        let server_config = directory.join("sshd_config");
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {shown}/authorized_keys\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             LogLevel ERROR\nUseDNS no\n{more}",
            host_key.display()
        );
        fs::write(&server_config, text)?;
        let config = directory.join("ssh_config");
        let text = format!(
            "Host pod\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {shown}/known_hosts\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n",
            identity.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("/usr/sbin/sshd");
        command.arg("-D").arg("-f").arg(&server_config).stdin(Stdio::null());
        let server = command.spawn().context("start sshd (Debian package openssh-server)")?;
        let sshd = Sshd { server, config, identity, port };
        sshd.wait()?;
        Ok(sshd)
    }

    /// Until a command runs over it; the first one also records the host key.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.ssh().args(["pod", "true"]).stderr(Stdio::null()).status()?.success() {
            if Instant::now() > deadline {
                bail!("sshd does not answer");
            }
        }
        Ok(())
    }

    /// `ssh` for the host named `pod`.
    pub fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config);
        command
    }

    /// The same as one word for `rsync -e`.
    pub fn shell(&self) -> String {
        format!("ssh -F {}", self.config.display())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn keygen(directory: &Path, name: &str) -> Result<PathBuf> {
    let key = directory.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key);
    ensure!(command.status().context("start ssh-keygen")?.success(), "ssh-keygen failed");
    Ok(key)
}

/// A port of 127.0.0.1 where nothing listens.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err();
    ensure!(refused, "port {port} is in use");
    Ok(port)
}
