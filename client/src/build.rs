//! The build on the laptop that runs after source changes and before the sync.

mod shared;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

pub use shared::{Ended, SharedBuilds};

/// A command with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub argv: Vec<String>,
    /// Variables that are added to the environment.
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
}

#[derive(Debug, Error)]
pub enum BuildError {
    #[error("the build {command} cannot be started")]
    Start { command: String, source: std::io::Error },
    #[error("the build {command} failed ({status})")]
    Failed { command: String, status: std::process::ExitStatus },
    #[error("the build {command} was ended")]
    Ended { command: String },
}

impl Build {
    /// A line for the shell of this system.
    pub fn shell(line: &str, dir: &Path) -> Self {
        let shell = if cfg!(windows) { ["cmd", "/C"] } else { ["sh", "-c"] };
        let argv = shell.iter().copied().chain([line]).map(str::to_owned).collect();
        Self { argv, env: Vec::new(), dir: dir.to_owned() }
    }

    /// The command as a person would type it.
    pub fn words(&self) -> String {
        let argv = match self.argv.as_slice() {
            [_, _, line] if matches!(self.argv[1].as_str(), "-c" | "/C") => line.clone(),
            argv => argv.join(" "),
        };
        let env = self.env.iter().map(|(key, value)| match value.contains(' ') {
            true => format!("{key}=\"{value}\" "),
            false => format!("{key}={value} "),
        });
        env.chain([argv]).collect()
    }

    /// Runs it; its output goes line by line to `lines`. Dropping the future ends the whole process group.
    pub async fn run(&self, lines: mpsc::Sender<String>) -> Result<(), BuildError> {
        let start = |source| BuildError::Start { command: self.words(), source };
        let missing = || std::io::Error::other("the command is empty");
        let program = self.argv.first().ok_or_else(missing).map_err(start)?;
        let mut command = Command::new(program);
        command.args(&self.argv[1..]).envs(self.env.iter().cloned()).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(start)?;
        let group = Group::of(&child);
        let stdout = child.stdout.take().map(|s| pass_on(s, lines.clone()));
        let stderr = child.stderr.take().map(|s| pass_on(s, lines));
        let output = async { tokio::join!(optional(stdout), optional(stderr)) };
        let (status, _) = tokio::join!(child.wait(), output);
        group.disarm();
        let status = status.map_err(start)?;
        match status.success() {
            true => Ok(()),
            false => Err(BuildError::Failed { command: self.words(), status }),
        }
    }
}

async fn optional(future: Option<impl Future<Output = ()>>) {
    if let Some(future) = future {
        future.await;
    }
}

async fn pass_on(stream: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(len) if len > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        // Whoever listened is gone; the build must not block on a full pipe.
        let _ = lines.send(text).await;
    }
}

/// The process group of a running build: ended when dropped before [`Group::disarm`].
struct Group(Option<u32>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            use nix::sys::signal::{Signal, killpg};
            // A compiler's children would go on and overwrite what the next build makes.
            let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    async fn output(build: &Build) -> (Result<(), BuildError>, Vec<String>) {
        let (tx, mut rx) = mpsc::channel(100);
        let result = build.run(tx).await;
        let mut lines = Vec::new();
        while let Ok(line) = rx.try_recv() {
            lines.push(line);
        }
        (result, lines)
    }

    #[tokio::test]
    async fn a_build_shows_what_it_says_and_how_it_ended() {
        let dir = tempfile::tempdir().expect("a directory");
        let (result, lines) = output(&Build::shell("echo one; echo two >&2", dir.path())).await;
        assert!(result.is_ok());
        assert_eq!(lines.len(), 2);
        let (result, lines) = output(&Build::shell("echo no; exit 3", dir.path())).await;
        let error = result.expect_err("it failed").to_string();
        assert_eq!(
            (error.as_str(), lines),
            ("the build echo no; exit 3 failed (exit status: 3)", vec!["no".into()])
        );
        let none = Build { argv: vec!["/nonexistent/tool".into()], env: Vec::new(), dir: dir.path().into() };
        assert!(matches!(output(&none).await.0, Err(BuildError::Start { .. })));
    }

    #[tokio::test]
    async fn a_superseded_build_ends_with_its_children() {
        let dir = tempfile::tempdir().expect("a directory");
        let build = Build::shell("sh -c 'echo $$; exec sleep 1000'; echo never", dir.path());
        let (tx, mut rx) = mpsc::channel(10);
        let pid = tokio::select! {
            _ = build.run(tx) => panic!("it ended by itself"),
            line = rx.recv() => line.expect("its pid"),
        };
        let stat = format!("/proc/{pid}/stat");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "the child lives on");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_build_reads_as_it_would_be_typed() {
        let build = Build {
            argv: ["cargo", "build"].map(str::to_owned).to_vec(),
            env: vec![("RUSTFLAGS".into(), "-C target-feature=+crt-static".into())],
            dir: "/".into(),
        };
        assert_eq!(build.words(), "RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build");
        assert_eq!(Build::shell("make -j2", Path::new("/")).words(), "make -j2");
    }
}
