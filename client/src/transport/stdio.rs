//! An agent on this machine: a child process that speaks the protocol on its standard streams.
//!
//! The child is in a process group of its own: Ctrl-C reaches the client only, which ends the session in order.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use devsync_protocol::path::display;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Link, Transport};

/// Lines of the agent's standard error that are kept for an error message.
const KEPT_LINES: usize = 20;
/// Longest line of it that is kept, in bytes.
const KEPT_LINE: u64 = 2000;
/// How long the agent may take to end after its input ended.
const END_GRACE: Duration = Duration::from_millis(800);

#[derive(Debug, Error)]
pub enum StdioError {
    #[error("devsync-agent is not beside {exe}, in DEVSYNC_AGENT or in PATH")]
    NoAgent { exe: String },
    #[error("the directory {dir} for the agent's state cannot be made")]
    State { dir: PathBuf, source: std::io::Error },
    #[error("{agent} cannot be started")]
    Spawn { agent: PathBuf, source: std::io::Error },
}

/// Starts an agent for `target`, with its state below `state`.
pub fn connect(target: &str, state: &Path) -> Result<Transport, StdioError> {
    let agent = find_agent()?;
    make_private(state).map_err(|source| StdioError::State { dir: state.to_owned(), source })?;
    let mut command = Command::new(&agent);
    command.arg("--stdio").arg("--target").arg(target).arg("--state").arg(state);
    start(command, &agent, END_GRACE)
}

/// Starts an agent for `target` that is an SSH server for the holder of `key` (see `devsync-agent inetd`).
pub fn ssh_server(target: &str, state: &Path, key: &str, who: &str) -> Result<Transport, StdioError> {
    let agent = find_agent()?;
    make_private(state).map_err(|source| StdioError::State { dir: state.to_owned(), source })?;
    let mut command = Command::new(&agent);
    command.arg("inetd").arg("--state").arg(state).args(["--target", target, "--key", key, "--who", who]);
    start(command, &agent, END_GRACE)
}

/// Starts `command`, which is or leads to an agent on its standard streams; `program` is its name in errors. At the
/// end it has `grace` to end by itself.
pub(super) fn start(mut command: Command, program: &Path, grace: Duration) -> Result<Transport, StdioError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child =
        command.spawn().map_err(|source| StdioError::Spawn { agent: program.to_owned(), source })?;
    let lost = || StdioError::Spawn { agent: program.to_owned(), source: std::io::Error::other("no pipes") };
    let stdin = child.stdin.take().ok_or_else(lost)?;
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let stderr = child.stderr.take().ok_or_else(lost)?;
    let words = Arc::new(Mutex::new(VecDeque::new()));
    let listener = tokio::spawn(keep_words(stderr, words.clone()));
    let link = Box::new(AgentChild { child, words, listener, grace });
    Ok(Transport { reader: Box::new(stdout), writer: Box::new(stdin), level: None, link })
}

/// Where the agent's executable is: beside this one, in DEVSYNC_AGENT, or in PATH.
pub fn find_agent() -> Result<PathBuf, StdioError> {
    let name = format!("devsync-agent{}", std::env::consts::EXE_SUFFIX);
    let exe = std::env::current_exe().unwrap_or_default();
    let beside = exe.parent().map(|dir| dir.join(&name)).filter(|path| path.is_file());
    let named = || std::env::var_os("DEVSYNC_AGENT").map(PathBuf::from);
    let in_path = || {
        let path: OsString = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|path| path.is_file())
    };
    let found = beside.or_else(named).or_else(in_path);
    found.ok_or_else(|| StdioError::NoAgent { exe: exe.display().to_string() })
}

/// Makes a directory that only its owner may read.
pub(crate) fn make_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

struct AgentChild {
    child: Child,
    words: Arc<Mutex<VecDeque<String>>>,
    listener: JoinHandle<()>,
    grace: Duration,
}

impl Link for AgentChild {
    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            let status = match timeout(self.grace, self.child.wait()).await {
                Ok(status) => status.ok(),
                Err(_) => {
                    let _ = self.child.kill().await;
                    None
                }
            };
            // A grandchild may hold the pipe open; what was said until now is enough.
            if timeout(Duration::from_millis(100), &mut self.listener).await.is_err() {
                self.listener.abort();
            }
            let mut words: Vec<String> =
                self.words.lock().map(|mut w| w.drain(..).collect()).unwrap_or_default();
            if let Some(status) = status.filter(|s| !s.success()) {
                words.push(format!("({status})"));
            }
            (!words.is_empty()).then(|| words.join("\n"))
        })
    }
}

/// Keeps the last lines that the agent writes to its standard error.
async fn keep_words(stderr: impl AsyncRead + Unpin, words: Arc<Mutex<VecDeque<String>>>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stderr).take(KEPT_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let shown = display(line.strip_suffix(b"\n").unwrap_or(&line));
        tracing::debug!(target: "agent", "{shown}");
        let Ok(mut words) = words.lock() else { return };
        words.push_back(shown);
        while words.len() > KEPT_LINES {
            words.pop_front();
        }
    }
}
