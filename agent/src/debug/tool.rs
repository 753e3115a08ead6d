//! A debugger's program: where it is, and its start with the app's ids and nothing of the agent's.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devsync_protocol::contract::TOOLBOX;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DebugError;
use crate::target::identity::Identity;

/// For letting go of the app.
const DETACH: Duration = Duration::from_secs(10);
/// Between two looks at whether a debugger has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// A program of the toolbox, or of this machine.
#[derive(Debug, Clone)]
pub(super) struct Tool(PathBuf);

impl Tool {
    /// In the toolbox's image, else in PATH.
    pub(super) fn find(name: &'static str) -> Result<Self, DebugError> {
        let toolbox = Path::new(TOOLBOX).join("debug").join(name);
        if toolbox.is_file() {
            return Ok(Self(toolbox));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
        found.map(Self).ok_or(DebugError::NoTool { tool: name })
    }

    /// Delve, or the one that is named.
    pub(super) fn dlv(named: Option<PathBuf>) -> Result<Self, DebugError> {
        match named {
            Some(file) => Ok(Self(file)),
            None => Self::find("dlv"),
        }
    }

    pub(super) fn name(&self) -> String {
        self.0.display().to_string()
    }

    /// The program with the app's real ids, as ptrace wants them, in an empty environment. The app can have it: what
    /// the image's tools may do in the agent's container is nothing, and they are not readable, so not traceable.
    pub(super) fn command(&self, app: &Identity) -> Result<Command, DebugError> {
        let mut command = Command::new(&self.0);
        command.env_clear().env("HOME", "/nonexistent").env("TERM", "dumb").current_dir("/");
        let (ids, own) = (app.access().app(), app.access().own());
        // A process of this machine's root, or an agent with CAP_SYS_PTRACE, could keep its own: the app's always do.
        if ids != own {
            std::os::unix::process::CommandExt::uid(&mut command, ids.uid);
            std::os::unix::process::CommandExt::gid(&mut command, ids.gid);
        }
        Ok(command)
    }

    pub(super) fn spawn(&self, command: &mut Command) -> Result<Child, DebugError> {
        command.spawn().map_err(|source| DebugError::Start { tool: self.name(), source })
    }
}

/// Runs a tool with `words` and the app's pid, its output on ours, and ends it when our input ends.
pub(super) fn until_end_of_input(tool: Tool, app: &Identity, words: &[&str]) -> Result<(), DebugError> {
    let mut command = tool.command(app)?;
    command.args(words).arg(app.pid().to_string()).stdin(Stdio::null()).stderr(io::stdout());
    let mut child = tool.spawn(&mut command)?;
    let pid = child.id();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut part = [0; 1024];
        while let Ok(1..) = input.read(&mut part) {}
        interrupt(pid);
    });
    let status = child.wait().map_err(|source| DebugError::Io { what: "wait for the tool", source })?;
    ended(&tool, status)
}

/// What a terminal's Ctrl-C does: debuggers detach.
pub(super) fn interrupt(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
    }
}

/// Waits for a debugger that should end by itself; interrupts it after a while, and never kills it: it would leave its
/// breakpoints in the app.
pub(super) fn let_end(tool: &Tool, mut child: Child) -> Result<(), DebugError> {
    let began = Instant::now();
    let mut interrupted = false;
    loop {
        match child.try_wait().map_err(|source| DebugError::Io { what: "wait for the debugger", source })? {
            Some(status) => return ended(tool, status),
            None if !interrupted && began.elapsed() > DETACH => {
                interrupt(child.id());
                interrupted = true;
            }
            None => std::thread::sleep(PAUSE),
        }
    }
}

pub(super) fn ended(tool: &Tool, status: std::process::ExitStatus) -> Result<(), DebugError> {
    use std::os::unix::process::ExitStatusExt;
    let interrupted = status.signal() == Some(Signal::SIGINT as i32) || status.code() == Some(130);
    match status.success() || interrupted {
        true => Ok(()),
        false => Err(DebugError::Ended { tool: tool.name(), status }),
    }
}
