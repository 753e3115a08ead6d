//! A running `devsync attach` as a person would start it, and the events it prints.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long an attach may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the programs are, and where the client keeps what it remembers.
#[derive(Debug, Clone)]
pub struct Devsync {
    /// The directory of `devsync` and `devsync-agent`.
    pub programs: PathBuf,
    /// A directory in place of the user's caches, configuration and runtime directory.
    pub home: PathBuf,
}

impl Devsync {
    /// The programs of a directory, with a home that is made here.
    pub fn new(programs: PathBuf, home: PathBuf) -> Result<Devsync> {
        let run = home.join("run");
        fs::create_dir_all(&run).with_context(|| format!("make {}", run.display()))?;
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700))?;
        Ok(Devsync { programs, home })
    }

    /// `devsync COMMAND…` in `project`. The client is ended by the kernel if this process dies.
    pub fn command(&self, project: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(self.programs.join("devsync")).args(arguments);
        command.current_dir(project).stdin(Stdio::null());
        for (variable, directory) in
            [("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")]
        {
            command.env(variable, self.home.join(directory));
        }
        command.env("XDG_RUNTIME_DIR", self.home.join("run")).env_remove("DEVSYNC_AGENT");
        command
    }
}

/// An attach that goes on until it is stopped.
#[derive(Debug)]
pub struct Attach {
    child: Child,
    /// Its standard output, line by line.
    pub events: Receiver<String>,
}

impl Attach {
    /// Starts it; standard error goes where ours goes.
    pub fn start(mut command: Command) -> Result<Attach> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("start devsync attach")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (line_tx, events) = channel();
        // Ends with the pipe, that is with the attach.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line).ok())
        });
        Ok(Attach { child, events })
    }

    /// Waits until the first sync is over; returns what was said until then.
    pub fn first_sync(&mut self) -> Result<Vec<String>> {
        self.wait_for("synced", |event| event["event"] == "synced").map(|(_, said)| said)
    }

    /// Waits for the next event called `name` and skips the others.
    pub fn event(&mut self, name: &str) -> Result<serde_json::Value> {
        self.event_where(name, |_| true)
    }

    /// Waits for an event called `name` that is `wanted`.
    pub fn event_where(
        &mut self,
        name: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        self.any_event_where(&[name], wanted)
    }

    /// Waits for an event called one of `names` that is `wanted`: what is told in several right ways.
    pub fn any_event_where(
        &mut self,
        names: &[&str],
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        let named = |event: &serde_json::Value| event["event"].as_str().is_some_and(|e| names.contains(&e));
        self.wait_for(&names.join(" or "), |event| named(event) && wanted(event)).map(|(event, _)| event)
    }

    /// Waits for an event called `name`; one called `bad` before it is a failure.
    pub fn event_but(&mut self, name: &str, bad: &str) -> Result<serde_json::Value> {
        let (event, _) = self.wait_for(name, |event| event["event"] == name || event["event"] == bad)?;
        if event["event"] == bad {
            bail!("devsync attach said {event} instead of {name:?}");
        }
        Ok(event)
    }

    /// Waits for a `wanted` event, which a failure calls `what`; gives the lines up to it too.
    fn wait_for(
        &mut self,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<(serde_json::Value, Vec<String>)> {
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.events.recv_timeout(left) else {
                let ended = self.child.try_wait()?;
                bail!("devsync attach did not say {what} (ended: {ended:?}); it said {said:?}");
            };
            let event: serde_json::Value = serde_json::from_str(&line).context(line.clone())?;
            said.push(line);
            if wanted(&event) {
                return Ok((event, said));
            }
        }
    }

    /// Waits until it ends by itself; gives its exit code and the events until then.
    pub fn end(mut self) -> Result<(Option<i32>, Vec<serde_json::Value>)> {
        let mut said = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => said.push(serde_json::from_str(&line).context(line)?),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("devsync attach does not end; it said {said:?}"),
            }
        }
        Ok((self.child.wait()?.code(), said))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end as Ctrl-C does, and waits until it has; one that hangs is killed.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGINT).context("signal devsync attach")?;
        loop {
            match self.events.recv_timeout(Duration::from_secs(10)) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill()?;
                    break;
                }
            }
        }
        self.child.wait().context("wait for devsync attach")
    }
}

impl Drop for Attach {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
