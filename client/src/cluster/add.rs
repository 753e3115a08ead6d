//! Adds an agent to a target that has none: what was asked for, and which way it is done.

use clap::{Args, ValueEnum};
use devsync_protocol::contract::{AGENT_IMAGE, TOOLBOX_IMAGE};

use super::neighbour::check_place;
use super::replace::{other_image, replace};
use super::workload::maker;
use super::{Cluster, PodTarget, WorkloadRef, candidates, copy, ephemeral, find, sidecar};
use crate::cli::{TargetWord, WorkloadKind};
use crate::connect::Route;
use crate::error::{CommandError, Kind};
use crate::report::Event;

/// How an agent gets into a pod that has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// As an ephemeral container where that is possible, else as a sidecar
    #[default]
    Auto,
    /// By a rollout of the workload with one more container
    Sidecar,
    /// As a container of the running pod, which nothing else changes
    Ephemeral,
}

/// Flags about the agent in a pod.
#[derive(Debug, Clone, Default, Args)]
pub struct AddArgs {
    /// How the agent gets into a pod that has none
    #[arg(long, value_enum, value_name = "WAY", default_value = "auto", help_heading = "Kubernetes")]
    pub via: Via,
    /// The agent's image, where it comes from a mirror or was loaded into the node
    #[arg(long, value_name = "IMAGE", help_heading = "Kubernetes")]
    pub agent_image: Option<String>,
    /// The agent's image with tools for `devsync shell` and `devsync debug`
    #[arg(long, conflicts_with = "agent_image", help_heading = "Kubernetes")]
    pub toolbox: bool,
    /// The Secret with the login for that image's registry
    #[arg(long, value_name = "NAME", help_heading = "Kubernetes")]
    pub image_pull_secret: Option<String>,
    /// End another person's session with this container
    #[arg(long, help_heading = "Kubernetes")]
    pub take_over: bool,
    /// Attach to a copy of the pod with this name, outside of its Service; `devsync detach` deletes it
    #[arg(long, value_name = "NAME", help_heading = "Kubernetes")]
    pub copy_to: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    pub args: AddArgs,
    /// Ask nothing.
    pub yes: bool,
    /// Change workloads that belong to another tool.
    pub overwrite: bool,
    /// Change nothing: only say what would be done.
    pub dry_run: bool,
    /// Contexts in which nobody needs to be asked.
    pub allow_contexts: Vec<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// There is an agent.
    Ready,
    /// There is none, since nothing was to be changed.
    OnlySaid,
}

impl AddOptions {
    pub fn image(&self) -> &str {
        let usual = if self.args.toolbox { TOOLBOX_IMAGE } else { AGENT_IMAGE };
        self.args.agent_image.as_deref().unwrap_or(usual)
    }
}

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What will be done, before it is.
    Plan(String),
    /// How far it is.
    Progress(String),
    /// What was done.
    Done(String),
    Note {
        text: String,
        hint: Option<String>,
    },
}

impl From<Step> for Event {
    fn from(step: Step) -> Self {
        match step {
            Step::Plan(text) | Step::Progress(text) | Step::Done(text) => Self::Step { text },
            Step::Note { text, hint } => Self::Note { text, hint },
        }
    }
}

/// Told of each step.
pub type Say<'a> = dyn FnMut(Step) + Send + 'a;

/// Sees to it that a target in a cluster has an agent; does nothing for any other target. A copy of a pod becomes the
/// target from then on.
pub async fn ensure_agent(
    route: &mut Route,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    let Some(workload) = WorkloadRef::of(&route.target) else { return Ok(Added::Ready) };
    let cluster = route.cluster().await?;
    let container = route.cluster.container.as_deref();
    let found = candidates(&cluster, &workload, container).await?;
    if !opts.dry_run {
        check_place(&cluster, opts.yes, &opts.allow_contexts).await?;
    }
    if let Some(name) = &opts.args.copy_to {
        let original = of(&cluster, &workload, container, found).await?;
        let added = copy::add(&cluster, &original, name, opts, say).await?;
        route.target = TargetWord::Workload { kind: WorkloadKind::Pod, name: name.clone() };
        return Ok(added);
    }
    if let Some(pod) = found.iter().find(|pod| pod.has_agent) {
        return match other_image(pod, opts) {
            Some(image) => replace(&cluster, &workload, (pod, image), opts, say).await,
            None => Ok(Added::Ready),
        };
    }
    add(&cluster, &workload, found, opts, say).await
}

/// Where an attach leads: to the copy of a pod, where one is asked for.
pub fn attached_to(args: &AddArgs, route: &Route) -> Route {
    let mut route = route.clone();
    if let (Some(name), true) = (&args.copy_to, route.target.is_in_cluster()) {
        route.target = TargetWord::Workload { kind: WorkloadKind::Pod, name: name.clone() };
    }
    route
}

/// Adds an agent to what has none; says first what will happen; returns when a pod with a running agent is there.
pub async fn add_agent(
    cluster: &Cluster,
    target: &WorkloadRef,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    add(cluster, target, Vec::new(), opts, say).await
}

async fn add(
    cluster: &Cluster,
    target: &WorkloadRef,
    found: Vec<PodTarget>,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    if opts.args.via != Via::Sidecar {
        let pod = of(cluster, target, cluster.container.as_deref(), found).await?;
        match ephemeral::way(cluster, &pod, opts).await? {
            Ok(way) => return ephemeral::add(cluster, &pod, way, opts, say).await,
            Err(error) if opts.args.via == Via::Ephemeral => return Err(error),
            Err(error) => {
                let text = format!("a sidecar, by a rollout, since {error}");
                say(Step::Note { text, hint: None });
            }
        }
    }
    let (workload, object) = maker(cluster, target).await?.changeable()?;
    sidecar::add(cluster, &workload, &object, opts, say).await
}

/// The newest ready pod.
async fn of(
    cluster: &Cluster,
    target: &WorkloadRef,
    container: Option<&str>,
    found: Vec<PodTarget>,
) -> Result<PodTarget, CommandError> {
    let first = found.into_iter().next();
    match first {
        Some(pod) => Ok(pod),
        None => {
            let none = || super::obstacles::cluster(format!("{target} has no pod that runs"));
            find(cluster, target, container).await?.into_iter().next().ok_or_else(none)
        }
    }
}

/// Asks; without anybody to ask, `--yes` is named.
pub(super) async fn agree(question: &str, opts: &AddOptions) -> Result<(), CommandError> {
    if opts.yes {
        return Ok(());
    }
    match crate::ask::confirm(question).await {
        Some(true) => Ok(()),
        Some(false) => Err(CommandError::new("ended without changing anything")),
        None => Err(CommandError::new(question.to_owned())
            .kind(Kind::Usage)
            .cause("nobody is here to answer")
            .hint("if it is meant: --yes")),
    }
}
