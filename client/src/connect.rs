//! From a target's name to a session with its agent.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::cli::{ClusterArgs, TargetWord};
use crate::cluster::{self, Access, Cluster, Login, PodTarget, WorkloadRef};
use crate::error::{CommandError, Kind};
use crate::session::{Event, Session, SessionError, Welcome};
use crate::transport::ssh::{self, PinnedKey, Reverse, Seat, SshError, SshTarget};
use crate::transport::stdio::{self, StdioError};
use crate::transport::{Transport, container};

/// zstd level for links that are slower than zstd.
const LINK_LEVEL: i32 = 1;

/// How a target is reached.
#[derive(Debug, Clone)]
pub struct Route {
    pub target: TargetWord,
    pub identity: Option<PathBuf>,
    pub host_key: Option<String>,
    /// Where a target in a cluster is looked for.
    pub cluster: ClusterArgs,
    /// Shared by all that reach it by this route.
    pub login: Login,
    /// End another client's session with the app first.
    pub take_over: bool,
    /// Who this is to the agent, from the first session to the last.
    pub seat: Seat,
    /// Ports of the pod that lead here while a session lasts.
    pub reverse: Reverse,
}

impl Route {
    /// What tells this target from all others, and leads to it on a command line: `pid/7`, or
    /// `deploy/demo -n shop --context kind-dev`.
    pub fn name(&self) -> String {
        // Without a kubeconfig there is nothing to tell apart; connecting says what is wrong.
        let place = self.target.is_in_cluster().then(|| cluster::place(&self.cluster).ok()).flatten();
        let container = self.cluster.container.as_ref().map(|name| format!(" -c {name}")).unwrap_or_default();
        match place {
            Some(place) => format!("{} {place}{container}", self.target),
            None => self.target.to_string(),
        }
    }

    /// The same; with `quiet` nothing is said of what is waited for.
    #[must_use]
    pub fn quiet(self, quiet: bool) -> Self {
        if quiet { Self { login: Login::quiet(), ..self } } else { self }
    }

    /// The cluster that the target is in.
    pub async fn cluster(&self) -> Result<Cluster, CommandError> {
        self.login.cluster(&self.cluster).await
    }
}

/// A session and what the agent said first.
pub struct Connected {
    pub session: Session,
    pub welcome: Welcome,
    pub events: mpsc::Receiver<Event>,
    /// The pod that was found, for a target in a cluster.
    pub pod: Option<PodTarget>,
}

/// Opens a session. A target in a cluster is looked for anew each time, so that a replaced pod is followed.
pub async fn connect(route: &Route) -> Result<Connected, CommandError> {
    let (transport, pod) = match &route.target {
        TargetWord::Pid(_) => (local(&route.target)?, None),
        TargetWord::Ssh { user, host, port } => (over_ssh(route, user.as_deref(), host, *port).await?, None),
        TargetWord::Container { engine, name } => {
            let connected = container::connect(*engine, name).await;
            (connected.map_err(tell_container)?, None)
        }
        TargetWord::Named(name) => {
            return Err(CommandError::usage(format!("[targets.{name}] of devsync.toml names no target")));
        }
        TargetWord::Workload { .. } | TargetWord::Selector(_) => {
            let (transport, pod) = into_pod(route).await?;
            (transport, Some(pod))
        }
    };
    let (session, welcome, events) = Session::open(transport).await.map_err(|error| {
        // A process that is not there does not come back under its number.
        let is_gone = matches!((&error, &route.target), (SessionError::Refused(_), TargetWord::Pid(_)));
        let error = CommandError::from(error);
        let error = if is_gone { error.lasting() } else { error };
        let error = match error.kind {
            Kind::Version if pod.is_some() => error.hint(other_release(route)),
            _ => error,
        };
        match error.get_hint() {
            None => error.hint(format!("the target was {}", route.target)),
            Some(_) => error,
        }
    })?;
    Ok(Connected { session, welcome, events, pod })
}

/// What helps against an agent in a pod that is not of this release.
fn other_release(route: &Route) -> String {
    let name = route.name();
    format!(
        "devsync detach {name}, then attach again: this release's agent is added; one that your manifests or the webhook \
         brought is of their release"
    )
}

/// The pod that a target in a cluster leads to: one with an agent before one without, the newest ready first.
pub async fn pod_of(route: &Route) -> Result<(Cluster, PodTarget), CommandError> {
    let not_here = || CommandError::usage(format!("{} is in no cluster", route.target));
    let workload = WorkloadRef::of(&route.target).ok_or_else(not_here)?;
    let cluster = route.cluster().await?;
    let found = cluster::find(&cluster, &workload, route.cluster.container.as_deref()).await?;
    let with_agent = found.iter().position(|pod| pod.has_agent).unwrap_or(0);
    let pod = found.into_iter().nth(with_agent).ok_or_else(not_here)?;
    Ok((cluster, pod))
}

async fn into_pod(route: &Route) -> Result<(Transport, PodTarget), CommandError> {
    let (cluster, pod) = pod_of(route).await?;
    let access = Access {
        take_over: route.take_over,
        identity: route.identity.clone(),
        host_key: route.host_key.clone(),
        seat: route.seat.clone(),
        reverse: route.reverse.clone(),
    };
    Ok((cluster::open(&cluster, &pod, &access).await?, pod))
}

fn local(target: &TargetWord) -> Result<Transport, CommandError> {
    if !cfg!(target_os = "linux") {
        return Err(CommandError::usage(format!("{target} is a process of this machine, which is no Linux"))
            .hint("reach an agent elsewhere: ssh/HOST:PORT"));
    }
    stdio::connect(&target.to_string(), &crate::dirs::state().join("agent")).map_err(tell_stdio)
}

pub(crate) fn tell_stdio(error: StdioError) -> CommandError {
    let hint = match &error {
        StdioError::NoAgent { .. } => "install devsync-agent beside devsync, or name it in DEVSYNC_AGENT",
        StdioError::State { .. } => "DEVSYNC_STATE names another directory",
        StdioError::Spawn { .. } => "is it an executable of this machine?",
    };
    CommandError::of(error).hint(hint)
}

pub(crate) fn tell_container(error: container::ContainerError) -> CommandError {
    let hint = error.hint();
    CommandError::of(error).hint_opt(hint)
}

async fn over_ssh(
    route: &Route,
    user: Option<&str>,
    host: &str,
    port: u16,
) -> Result<Transport, CommandError> {
    let (identity, host_key) = (identity_for(route)?, host_key_for(route)?);
    let addr = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let user = user.unwrap_or("devsync").to_owned();
    let (session, reverse) = (route.seat.name()?, route.reverse.clone());
    let target = SshTarget { addr, user, identity, host_key, session, reverse };
    let mut transport = ssh::connect(&target).await.map_err(|error| {
        let hint = error.hint();
        let is_lasting = matches!(
            error,
            SshError::HostKey { .. }
                | SshError::Refused { .. }
                | SshError::Identity(_)
                | SshError::Subsystem { .. }
        );
        let error = CommandError::of(error).hint_opt(hint);
        if is_lasting { error.lasting() } else { error }
    })?;
    if !is_loopback(host) {
        transport.level = Some(LINK_LEVEL);
    }
    Ok(transport)
}

fn missing(route: &Route, flag: &str, hint: &str) -> CommandError {
    CommandError::usage(format!("{} needs {flag}", route.target)).hint(hint)
}

/// The person's key, for an agent that was given it.
pub(crate) fn identity_for(route: &Route) -> Result<PathBuf, CommandError> {
    let hint = "the private key whose public half the agent was given";
    route.identity.clone().ok_or_else(|| missing(route, "--identity FILE", hint))
}

/// The host key of an agent that is reached by its address alone.
pub(crate) fn host_key_for(route: &Route) -> Result<PinnedKey, CommandError> {
    let given = route.host_key.as_deref();
    let hint = "the agent prints its host key when it starts";
    let given = given.ok_or_else(|| missing(route, "--host-key FILE|KEY", hint))?;
    PinnedKey::parse(given).map_err(|error| CommandError::of(error).kind(Kind::Usage))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
