//! An agent in a container of its own beside a plain container: docker/NAME and podman/NAME.
//!
//! The engine's own command starts it in the app's process and network namespaces and is the stdio transport. The
//! agent is root with the engine's default capabilities, which reaches an app of any user by taking on its ids, and
//! with CAP_SYS_PTRACE, since a desktop's kernel often lets none but that restart another process (Yama).

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use devsync_protocol::contract::{AGENT_IMAGE, STATE_DIR, TOOLBOX_IMAGE};
use thiserror::Error;
use tokio::process::Command;
use tokio::time::timeout;

use super::Transport;
use super::stdio::{self, StdioError};

/// The volume with the agents' records; one for all containers, and small.
pub const VOLUME: &str = "devsync-state";
/// The engine removes the agent's container before its command ends.
const END_GRACE: Duration = Duration::from_secs(5);
/// A question to an engine; Docker Desktop may be waking up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Fetching the image.
const PULL: Duration = Duration::from_secs(600);

/// Which engine's command is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    Docker,
    Podman,
}

impl Engine {
    /// Its command, which is its name in a target too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Docker, Self::Podman].into_iter().find(|engine| engine.name() == text)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Error)]
pub enum ContainerError {
    #[error("{0} is not installed here, or not in PATH")]
    NoEngine(Engine),
    #[error("{engine} has no container {name}")]
    NoContainer { engine: Engine, name: String },
    #[error("the container {name} is {state}")]
    NotRunning { engine: Engine, name: String, state: String },
    #[error("{engine} does not have the agent's image {image} and cannot fetch it: {said}")]
    NoImage { engine: Engine, image: String, variable: &'static str, said: String },
    #[error("`{engine} {question}` failed: {said}")]
    Engine { engine: Engine, question: String, said: String },
    #[error("{engine} does not answer within {} s", PATIENCE.as_secs())]
    Silent { engine: Engine },
    #[error(transparent)]
    Start(#[from] StdioError),
}

impl ContainerError {
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoEngine(engine) => {
                let other = if *engine == Engine::Docker { Engine::Podman } else { Engine::Docker };
                format!("install {engine}; or say {other}/NAME")
            }
            Self::NoContainer { engine, .. } => format!("{engine} ps"),
            Self::NotRunning { engine, name, state } if state == "paused" => {
                format!("{engine} unpause {name}")
            }
            Self::NotRunning { engine, name, .. } => format!("{engine} start {name}"),
            Self::NoImage { engine, variable, .. } => {
                format!("{engine} load -i IMAGE.tar, and name the image in {variable}")
            }
            Self::Silent { engine } | Self::Engine { engine, .. } => format!("{engine} info"),
            Self::Start(_) => return None,
        })
    }
}

/// Starts an agent beside the container `name`.
pub async fn connect(engine: Engine, name: &str) -> Result<Transport, ContainerError> {
    let command = agent_command(engine, name, Tools::Unused, &["--stdio", "--state", STATE_DIR]).await?;
    Ok(stdio::start(command, Path::new(engine.name()), END_GRACE)?)
}

/// Starts an agent beside the container `name` that is an SSH server for the holder of `key`.
pub async fn ssh_server(
    engine: Engine,
    name: &str,
    key: &str,
    who: &str,
) -> Result<Transport, ContainerError> {
    let words = ["inetd", "--state", STATE_DIR, "--key", key, "--who", who];
    let command = agent_command(engine, name, Tools::Welcome, &words).await?;
    Ok(stdio::start(command, Path::new(engine.name()), END_GRACE)?)
}

/// The engine's command that runs the agent with `words` beside the container `name`, not yet started.
pub async fn agent_command(
    engine: Engine,
    name: &str,
    tools: Tools,
    words: &[&str],
) -> Result<Command, ContainerError> {
    let id = running(engine, name).await?;
    let image = image(engine, tools).await?;
    let mut command = command(engine);
    command.args(arguments(&id, &image, words));
    Ok(command)
}

/// What the agent is to have beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    Unused,
    /// A shell for a container that has none; another container does without.
    Welcome,
    /// Debuggers.
    Needed,
}

/// An image of the agent.
struct Image {
    name: String,
    /// Names another one than the release's.
    variable: &'static str,
    is_named: bool,
}

impl Image {
    fn new(variable: &'static str, default: &str) -> Self {
        let named = std::env::var(variable).ok();
        Self { is_named: named.is_some(), name: named.unwrap_or_else(|| default.to_owned()), variable }
    }

    fn agent() -> Self {
        Self::new("DEVSYNC_AGENT_IMAGE", AGENT_IMAGE)
    }

    fn toolbox() -> Self {
        Self::new("DEVSYNC_TOOLBOX_IMAGE", TOOLBOX_IMAGE)
    }
}

/// One that the engine has before one that is fetched: each serves where no tools are needed.
async fn image(engine: Engine, tools: Tools) -> Result<String, ContainerError> {
    let mut images = match tools {
        Tools::Unused => vec![Image::agent(), Image::toolbox()],
        Tools::Welcome => vec![Image::toolbox(), Image::agent()],
        Tools::Needed => vec![Image::toolbox()],
    };
    // What somebody named is what runs, and no other in its place.
    if images.iter().any(|image| image.is_named) {
        images.retain(|image| image.is_named);
    }
    for image in &images {
        if has(engine, &image.name).await? {
            return Ok(image.name.clone());
        }
    }
    fetch(engine, images.swap_remove(0)).await
}

/// The engine's command that brings tools, where it has no image with them.
pub async fn lacks_tools(engine: Engine) -> Option<String> {
    let toolbox = Image::toolbox().name;
    let is_there = has(engine, &toolbox).await.unwrap_or(true);
    (!is_there).then(|| format!("{engine} pull {toolbox}"))
}

/// The command that starts the agent with `words`. What it says is not kept in the engine's log: it is the session's bytes.
fn arguments(id: &str, image: &str, words: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["run", "--rm", "--interactive", "--pull=never", "--log-driver=none"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    all.extend([
        format!("--pid=container:{id}"),
        format!("--network=container:{id}"),
        "--user=0:0".to_owned(),
        "--cap-add=SYS_PTRACE".to_owned(),
        "--security-opt=no-new-privileges".to_owned(),
        "--read-only".to_owned(),
        format!("--volume={VOLUME}:{STATE_DIR}"),
        "--label=devsync.dev/agent".to_owned(),
        image.to_owned(),
    ]);
    all.extend(words.iter().copied().map(str::to_owned));
    all
}

/// The whole id of a container that runs.
async fn running(engine: Engine, name: &str) -> Result<String, ContainerError> {
    let format = "--format={{.Id}} {{.State.Status}}";
    let output = ask(engine, ["container", "inspect", format, "--", name], PATIENCE).await?;
    let no_container = || ContainerError::NoContainer { engine, name: name.to_owned() };
    if !output.status.success() {
        let said = said(&output);
        return Err(match said.to_lowercase().contains("no such") {
            true => no_container(),
            false => ContainerError::Engine { engine, question: format!("container inspect {name}"), said },
        });
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.trim().split_once(' ') {
        Some((id, "running")) if is_id(id) => Ok(id.to_owned()),
        Some((_, state)) if !state.is_empty() && state != "running" => {
            Err(ContainerError::NotRunning { engine, name: name.to_owned(), state: state.to_owned() })
        }
        _ => Err(no_container()),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

async fn has(engine: Engine, image: &str) -> Result<bool, ContainerError> {
    let found = ask(engine, ["image", "inspect", "--format={{.Id}}", "--", image], PATIENCE).await?;
    Ok(found.status.success())
}

async fn fetch(engine: Engine, image: Image) -> Result<String, ContainerError> {
    let Image { name: image, variable, .. } = image;
    tracing::info!("fetching {image}");
    let output = ask(engine, ["pull", "--quiet", "--", &image], PULL).await?;
    if output.status.success() {
        return Ok(image);
    }
    Err(ContainerError::NoImage { engine, image, variable, said: said(&output) })
}

/// Runs the engine's command to its end.
async fn ask<const N: usize>(
    engine: Engine,
    words: [&str; N],
    patience: Duration,
) -> Result<Output, ContainerError> {
    let mut command = command(engine);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(patience, command.output()).await {
        Err(_) => Err(ContainerError::Silent { engine }),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(ContainerError::NoEngine(engine))
        }
        Ok(Err(error)) => {
            let question = words.join(" ");
            Err(ContainerError::Engine { engine, question, said: error.to_string() })
        }
        Ok(Ok(output)) => Ok(output),
    }
}

/// `DEVSYNC_DOCKER` and `DEVSYNC_PODMAN` name another command than the one in PATH.
fn command(engine: Engine) -> Command {
    let named = std::env::var_os(format!("DEVSYNC_{}", engine.name().to_uppercase()));
    Command::new(named.as_deref().unwrap_or(OsStr::new(engine.name())))
}

/// The last line of what the engine says, for a person.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    let last = last.trim();
    devsync_protocol::path::display(last.strip_prefix("Error: ").unwrap_or(last).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_in_the_app_s_namespaces_and_leaves_nothing() {
        let words = arguments(&"a".repeat(64), "image", &["--stdio", "--state", STATE_DIR]).join(" ");
        for word in ["--rm ", "--log-driver=none ", &format!("--pid=container:{}", "a".repeat(64))] {
            assert!(words.contains(word), "{words}");
        }
        assert!(words.ends_with("image --stdio --state /run/devsync"), "{words}");
    }

    #[test]
    fn engines_are_named_by_their_commands() {
        for engine in [Engine::Docker, Engine::Podman] {
            assert_eq!(Engine::parse(engine.name()), Some(engine));
        }
        assert_eq!(Engine::parse("pid"), None);
    }
}
