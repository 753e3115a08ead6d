//! Kubernetes: from a target's name to a stream to the agent in its pod.
//!
//! Only this module and the commands know the API. Every request has a deadline, every answer of a pod a bound.

mod add;
mod agent;
mod apply;
mod config;
mod copy;
mod credential;
mod detach;
mod doctor;
mod ephemeral;
mod exec;
mod explain;
mod find;
mod foreign;
mod forward;
mod install;
mod login;
mod logs;
mod managed;
mod mark;
mod neighbour;
mod obstacles;
mod ports;
mod proxy;
mod replace;
mod revive;
mod rollout;
mod sidecar;
mod state;
mod target;
mod workload;

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::time::timeout;

use crate::cli::ClusterArgs;
use crate::error::{CommandError, Kind};
use login::Source;

pub use add::{AddArgs, AddOptions, Added, Say, Step, Via, add_agent, attached_to, ensure_agent};
pub(crate) use agent::who;
pub use agent::{Access, Raw, open, raw};
pub use apply::{Applied, apply_object};
pub use config::{Place, place};
pub use detach::{DetachOptions, detach};
pub use doctor::{Examined, examine};
pub use exec::{closes_input, exec};
pub use explain::explain;
pub use find::{Seen, Version, candidates, find, look, next_change};
pub use forward::{Forward, PortStream, Said, forward};
pub use install::{InstallOptions, health, install, uninstall};
pub use login::Login;
pub use logs::{LogLine, LogWish, Logs};
pub use mark::Marks;
pub use neighbour::check_place;
pub use ports::{PortSpec, Ports, listen};
pub use revive::revive;
pub use target::{PodTarget, WorkloadRef, did_you_mean, short_id};

/// How long the API server may take to answer one request.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Credentials are made anew so many seconds before they end: a request may take its time.
const ENDING: i64 = 60;

/// A connection to a cluster's API, as one user, looking at one namespace.
#[derive(Clone)]
pub struct Cluster {
    pub client: kube::Client,
    pub namespace: String,
    /// The kubeconfig's context; empty in a cluster's own pod.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The container that was asked for.
    pub container: Option<String>,
    /// How kubectl is told the same: `-n shop --context kind-dev`.
    pub flags: String,
    /// Told what is waited for.
    pub progress: fn(&str),
    /// When its credentials end, and where others are had.
    until: Option<Timestamp>,
    source: Option<Source>,
}

impl Cluster {
    /// Reads the kubeconfig as kubectl does; asks nothing of the API server yet.
    pub async fn connect(args: &ClusterArgs) -> Result<Self, CommandError> {
        let config::Loaded { config, place, until } = config::load(args).await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = kube::Client::try_from(config).map_err(|error| {
            explain(error, &format!("the cluster of context {} cannot be reached", place.context))
        })?;
        let (namespace, context) = (place.namespace.clone(), place.context.clone());
        let file = args.kubeconfig.as_ref().map(|file| format!(" --kubeconfig {}", file.display()));
        let flags = format!("{place}{}", file.unwrap_or_default());
        Ok(Self {
            client,
            namespace,
            context,
            server,
            container: args.container.clone(),
            flags,
            progress: tell,
            until,
            source: None,
        })
    }

    /// The same cluster with credentials that last: for what is kept for hours.
    pub async fn fresh(&self) -> Self {
        match &self.source {
            Some(source) if self.is_ending() => source.cluster().await.unwrap_or_else(|| self.clone()),
            _ => self.clone(),
        }
    }

    /// True shortly before its credentials end.
    fn is_ending(&self) -> bool {
        self.until.is_some_and(|until| until.duration_since(Timestamp::now()).as_secs() < ENDING)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One request: with a deadline, and with the server's name in what went wrong. `doing` names what fails without
    /// it: "pod/demo cannot be read".
    pub async fn ask<T>(
        &self,
        doing: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CommandError> {
        match timeout(ANSWER_WITHIN, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(error, doing)),
            Err(_) => Err(CommandError::new(doing)
                .kind(Kind::Cluster)
                .cause(format!("{} did not answer within {} s", self.server, ANSWER_WITHIN.as_secs()))
                .hint(format!("kubectl cluster-info{}", self.context_flag()))),
        }
    }

    /// The server's version, as `(1, 30)`; what a number has after it (`30+`) is left out.
    pub async fn version(&self, doing: &str) -> Result<(u32, u32), CommandError> {
        let version = self.ask(doing, self.client.apiserver_version()).await?;
        let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        Ok((number(&version.major), number(&version.minor)))
    }

    /// As [`explain`]; a server that cannot be reached is named.
    pub fn explain(&self, error: kube::Error, doing: &str) -> CommandError {
        explain::at(error, doing, Some(self))
    }

    /// The context, for a person.
    pub(crate) fn context_name(&self) -> &str {
        if self.context.is_empty() { "(none)" } else { &self.context }
    }

    /// ` --context NAME`, for a hint's kubectl.
    pub(crate) fn context_flag(&self) -> String {
        if self.context.is_empty() { String::new() } else { format!(" --context {}", self.context) }
    }
}

/// Says on standard error what is waited for.
fn tell(text: &str) {
    eprintln!("{}", crate::report::plain_line(text));
}
