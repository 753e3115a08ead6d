//! The agent's own commands beside an app, wherever it is: through pods/exec in the agent's container, as a child here,
//! or in a container of docker's or podman's. A command's input is closed when nobody needs it any more, and it is
//! never killed: what it holds it lets go.

use std::process::Stdio;

use devsync_protocol::contract::AGENT_PROGRAM;
use k8s_openapi::api::core::v1::Container;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::cli::TargetWord;
use crate::cluster::{self, Cluster, PodTarget};
use crate::connect::{Route, pod_of, tell_container, tell_stdio};
use crate::error::{CommandError, Kind};
use crate::program::{End, Program, Wish};
use crate::transport::container::{self, Tools};
use crate::transport::stdio;

/// Longest output of a command that is only asked something.
const LONGEST: u64 = 256 * 1024;

/// An app whose agent can be given commands.
pub struct Beside {
    /// What errors call it.
    pub name: String,
    place: Place,
}

enum Place {
    Pod { cluster: Box<Cluster>, pod: Box<PodTarget>, agent: String },
    Here,
    Container { engine: container::Engine, name: String },
}

impl Beside {
    /// Finds the app; starts nothing.
    pub async fn find(route: &Route) -> Result<Self, CommandError> {
        let name = route.target.to_string();
        match &route.target {
            TargetWord::Pid(_) => Ok(Self { name, place: Place::Here }),
            TargetWord::Container { engine, name: container } => {
                let place = Place::Container { engine: *engine, name: container.clone() };
                Ok(Self { name, place })
            }
            TargetWord::Ssh { .. } | TargetWord::Named(_) => {
                Err(CommandError::usage(format!("{name} has only its SSH server, and this needs more"))
                    .hint("name the pod, or the process on its own machine: pid/N"))
            }
            TargetWord::Workload { .. } | TargetWord::Selector(_) => {
                let (cluster, pod) = pod_of(route).await?;
                let agent = pod.agent.clone().ok_or_else(|| {
                    CommandError::new(format!("{pod} has no devsync agent")).kind(Kind::Cluster).hint(
                        format!("devsync attach {} --toolbox --once adds one with debuggers", route.name()),
                    )
                })?;
                Ok(Self::in_pod(cluster, pod, agent))
            }
        }
    }

    /// An app in a pod that was found already; `agent`: its agent's container.
    pub fn in_pod(cluster: Cluster, pod: PodTarget, agent: String) -> Self {
        let name = pod.to_string();
        Self { name, place: Place::Pod { cluster: Box::new(cluster), pod: Box::new(pod), agent } }
    }

    /// The pod, for an app in one.
    pub fn pod(&self) -> Option<&PodTarget> {
        match &self.place {
            Place::Pod { pod, .. } => Some(pod),
            Place::Here | Place::Container { .. } => None,
        }
    }

    /// True for a process of this machine, whose agent sees all others.
    pub fn is_here(&self) -> bool {
        matches!(self.place, Place::Here)
    }

    /// The app's container, for a pod.
    pub fn container(&self) -> Option<&Container> {
        let pod = self.pod()?;
        let containers = &pod.object.spec.as_ref()?.containers;
        containers.iter().find(|container| container.name == pod.container)
    }

    /// Starts `devsync-agent COMMAND --target APP WORDS…`.
    pub async fn start(&self, command: &str, words: &[&str]) -> Result<Program, CommandError> {
        match &self.place {
            Place::Pod { cluster, pod, agent } => {
                let target = format!("container/{}", pod.container_id);
                let own = [AGENT_PROGRAM, command, "--target", &target];
                let words = own.iter().chain(words).map(|word| (*word).to_owned()).collect();
                let cluster = cluster.fresh().await;
                cluster::exec(&cluster, pod, agent, &Wish { words, stdin: true, terminal: None }).await
            }
            Place::Here => {
                let agent = stdio::find_agent().map_err(tell_stdio)?;
                let mut child = Command::new(agent);
                child.args([command, "--target", &self.name]).args(words);
                here(child, &self.name)
            }
            Place::Container { engine, name } => {
                let words = [&[command], words].concat();
                let tools = if command == "debug" { Tools::Needed } else { Tools::Unused };
                let child = container::agent_command(*engine, name, tools, &words).await;
                here(child.map_err(tell_container)?, &self.name)
            }
        }
    }

    /// Runs a command to its end and gives what it wrote.
    pub async fn ask(&self, command: &str, words: &[&str]) -> Result<String, CommandError> {
        let Program { stdin, stdout, stderr, end, .. } = self.start(command, words).await?;
        let text = |stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>| async {
            let mut text = Vec::new();
            if let Some(stream) = stream {
                let _ = stream.take(LONGEST).read_to_end(&mut text).await;
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        let (out, err, end) = tokio::join!(text(Some(stdout)), text(stderr), end);
        drop(stdin);
        match end? {
            End::Exit(0) => Ok(out),
            end => Err(self.failed(&err, &end)),
        }
    }

    /// What the agent said of its failure; its own hint is ours.
    pub fn failed(&self, said: &str, end: &End) -> CommandError {
        let said = said.trim().rsplit("devsync-agent: ").next().unwrap_or_default();
        let (cause, hint) = match said.rsplit_once(" (hint: ") {
            Some((cause, hint)) => (cause, Some(hint.trim_end_matches(')').to_owned())),
            None => (said, None),
        };
        let release = said.contains("unrecognized subcommand") || matches!(end, End::Missing(_));
        let cause = if cause.is_empty() { format!("it ended with {}", end.code()) } else { cause.to_owned() };
        let error = CommandError::new(format!("the agent for {} cannot do that", self.name)).cause(cause);
        match release {
            true => error.kind(Kind::Version).hint("the agent and this devsync must be of one release"),
            false => error.hint_opt(hint),
        }
    }
}

/// A child whose streams are pipes. It is not killed with us: the end of its input tells it.
fn here(mut command: Command, name: &str) -> Result<Program, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::new(format!("the agent for {name} cannot be started")).cause(error)
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is ours.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let lost = || failed(std::io::Error::other("no pipes"));
    let stdin = child.stdin.take().ok_or_else(lost)?;
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let stderr = child.stderr.take().ok_or_else(lost)?;
    let (control, _) = mpsc::channel(1);
    let end = Box::pin(async move {
        let status =
            child.wait().await.map_err(|e| CommandError::new("the agent's end was lost").cause(e))?;
        Ok(End::Exit(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
    });
    Ok(Program {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(stdout),
        stderr: Some(Box::new(stderr)),
        control,
        end,
    })
}
