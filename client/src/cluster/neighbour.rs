//! Good manners in a shared cluster: no change in a place that may not be for development without asking, and a mark on
//! the pod that says who is attached.

use std::net::IpAddr;

use devsync_protocol::contract::{ATTACHED_BY, ATTACHED_SINCE, ENABLED, INJECT, MODIFIED_AT};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::add::{AddOptions, Say, Step};
use super::agent::who;
use super::{ANSWER_WITHIN, Cluster, PodTarget, explain};
use crate::cli::ClusterArgs;
use crate::error::{CommandError, Kind};

/// Names that tools for clusters on one's own machine give their contexts.
const LOCAL_NAMES: [&str; 7] = [
    "minikube",
    "docker-desktop",
    "docker-for-desktop",
    "rancher-desktop",
    "colima",
    "orbstack",
    "podman-desktop",
];
const LOCAL_PREFIXES: [&str; 4] = ["kind-", "k3d-", "minikube-", "colima-"];
/// Times that a mark is tried again when somebody else changes the pod at that moment.
const TRIES: usize = 3;

/// True for a cluster on this machine: its API listens on a loopback address, or the context has the name that a tool
/// for such clusters gives it *and* the address is none of the wide Internet. A name alone proves nothing: anybody may
/// call a context `kind-prod`. (A tunnel to elsewhere that ends on a loopback address cannot be told apart.)
pub(super) fn is_local(context: &str, server: &str) -> bool {
    let host = host_of(server);
    let named = LOCAL_NAMES.contains(&context) || LOCAL_PREFIXES.iter().any(|p| context.starts_with(p));
    match host.parse::<IpAddr>() {
        // 0.0.0.0 as a destination is this machine; k3d writes that.
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => true,
        Ok(IpAddr::V4(ip)) => named && (ip.is_private() || ip.is_link_local()),
        Ok(IpAddr::V6(ip)) => named && (ip.is_unique_local() || ip.is_unicast_link_local()),
        Err(_) => {
            let host = host.to_ascii_lowercase();
            host == "localhost"
                || host.ends_with(".localhost")
                || named && (host.ends_with(".docker.internal") || !host.contains('.'))
        }
    }
}

/// The host in `https://HOST:PORT/…`.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    match authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// Asks before anything happens in a place that does not say it is for development.
pub(super) async fn check_place(cluster: &Cluster, opts: &AddOptions) -> Result<(), CommandError> {
    let (context, namespace) = (&cluster.context, &cluster.namespace);
    let allowed = opts.allow_contexts.iter().any(|allowed| allowed == context);
    if opts.yes || allowed || is_local(context, &cluster.server) || is_for_development(cluster).await {
        return Ok(());
    }
    let what = format!(
        "context {context} is no cluster of this machine, and namespace {namespace} is not marked for development"
    );
    match crate::ask::typed(&format!("{what}.\nType the namespace's name to go on: "), namespace).await {
        Some(true) => Ok(()),
        Some(false) => Err(CommandError::new("ended without changing anything").cause("another name was typed")),
        None => Err(CommandError::new(what)
            .kind(Kind::Usage)
            .cause("nobody is here to answer")
            .hint(format!(
                "if it is meant: --yes; for good: allow-contexts = [\"{context}\"] in devsync.toml, or kubectl label \
                 namespace {namespace} {INJECT}={ENABLED}{}",
                cluster.context_flag()
            ))),
    }
}

/// True where the namespace has the label of development; who may not read it cannot know.
async fn is_for_development(cluster: &Cluster) -> bool {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match timeout(ANSWER_WITHIN, namespaces.get(&cluster.namespace)).await {
        Ok(Ok(namespace)) => {
            let labels = namespace.metadata.labels.unwrap_or_default();
            labels.get(INJECT).is_some_and(|value| value == ENABLED)
        }
        _ => false,
    }
}

/// A pod's annotations while this client is attached to it.
pub struct Mark {
    cluster: Cluster,
    namespace: String,
    pod: String,
    uid: String,
    who: String,
}

/// Marks the pod as attached, with an Event that says what is done to it. Somebody else's mark is respected (and said)
/// unless their session was taken over; the agent decides who may, the mark only tells. What cannot be written for want
/// of a right is a note. `None` for a target in no cluster too.
pub async fn mark(
    place: &ClusterArgs,
    target: Option<&PodTarget>,
    take_over: bool,
    say: &mut Say<'_>,
) -> Option<Mark> {
    let target = target?;
    // It was connected to a moment ago.
    let cluster = Cluster::connect(place).await.ok()?;
    let this = Mark {
        cluster,
        namespace: target.namespace.clone(),
        pod: target.pod.clone(),
        uid: target.uid.clone(),
        who: who(),
    };
    let now = Timestamp::now();
    let wanted =
        json!({ATTACHED_BY: this.who, ATTACHED_SINCE: now.to_string(), MODIFIED_AT: now.to_string()});
    match this.change(&wanted, |by| by == this.who || take_over).await {
        Ok(None) => {}
        Ok(Some(other)) => {
            say(Step::Note {
                text: format!("{target} is marked as attached by {}", short(&other)),
                hint: Some(
                    "a mark of a session that ended without a word: --take-over replaces it".to_owned(),
                ),
            });
            return None;
        }
        Err(error) => {
            say(unmarked(&format!("{target} cannot be marked as attached"), &error));
            return None;
        }
    }
    let message =
        format!("{} attached to container {}: its files are synced from there", this.who, target.container);
    if let Err(error) = this.tell("DevsyncAttached", &message).await {
        say(unmarked(&format!("no Event can be written for {target}"), &error));
    }
    Some(this)
}

/// What somebody else wrote, on one line and no longer than a name.
fn short(by: &str) -> String {
    crate::report::plain_line(by).chars().take(64).collect()
}

impl Mark {
    /// Takes the mark away again, where it is still this one.
    pub async fn remove(self) {
        let gone = json!({ATTACHED_BY: null, ATTACHED_SINCE: null});
        if let Ok(None) = self.change(&gone, |by| by == self.who).await {
            let message = format!("{} is no longer attached; files that were synced stay", self.who);
            let _ = self.tell("DevsyncDetached", &message).await;
        }
    }

    /// Writes the annotations, unless somebody else's mark is there that `may` does not pass: that one is the answer.
    async fn change(
        &self,
        annotations: &Value,
        may: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, CommandError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let doing = format!("pod/{} cannot be annotated", self.pod);
        for tried in 1.. {
            let pod = self.cluster.ask(&doing, pods.get(&self.pod)).await?;
            if pod.metadata.uid.as_deref() != Some(&self.uid) {
                return Err(CommandError::new(doing).cause("it was replaced meanwhile"));
            }
            let now = pod.metadata.annotations.unwrap_or_default();
            if let Some(by) = now.get(ATTACHED_BY).filter(|by| !may(by)) {
                let since =
                    now.get(ATTACHED_SINCE).map(|since| format!(" since {since}")).unwrap_or_default();
                return Ok(Some(format!("{by}{since}")));
            }
            // With the version that was read, so that two people cannot both think they were first.
            let version = pod.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
            let params =
                PatchParams { field_manager: Some("devsync-mark".to_owned()), ..PatchParams::default() };
            match timeout(ANSWER_WITHIN, pods.patch(&self.pod, &params, &Patch::Merge(&patch))).await {
                Ok(Ok(_)) => return Ok(None),
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && tried < TRIES => {}
                Ok(Err(error)) => return Err(explain(error, &doing)),
                Err(_) => return Err(CommandError::new(doing).cause("the API server did not answer")),
            }
        }
        Ok(None)
    }

    async fn tell(&self, reason: &str, message: &str) -> Result<(), CommandError> {
        let now = Timestamp::now();
        let event = json!({
            // As client-go names them.
            "metadata": {"name": format!("{}.{:x}", self.pod, now.as_nanosecond()), "namespace": self.namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": self.pod, "namespace": self.namespace,
                               "uid": self.uid},
            "reason": reason, "message": message, "type": "Normal", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": "devsync"}, "reportingComponent": "devsync", "reportingInstance": self.who,
        });
        let doing = "an Event cannot be written";
        let event: Event =
            serde_json::from_value(event).map_err(|error| CommandError::new(doing).cause(error))?;
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        self.cluster.ask(doing, events.create(&PostParams::default(), &event)).await.map(drop)
    }
}

fn unmarked(text: &str, error: &CommandError) -> Step {
    let why = error.causes().first().cloned().unwrap_or_else(|| error.to_string());
    Step::Note { text: format!("{text}: {why}"), hint: error.get_hint().map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_this_machine_is_known() {
        for (context, server) in [
            ("anything", "https://127.0.0.1:6443"),
            ("anything", "https://localhost:6443/"),
            ("anything", "https://[::1]:6443"),
            ("k3d-dev", "https://0.0.0.0:35000"),
            ("minikube", "https://192.168.49.2:8443"),
            ("minikube-two", "https://10.1.2.3:8443"),
            ("kind-dev", "https://kind-control-plane:6443"),
            ("docker-desktop", "https://kubernetes.docker.internal:6443"),
        ] {
            assert!(is_local(context, server), "{context} {server}");
        }
    }

    #[test]
    fn a_name_alone_makes_no_cluster_local() {
        for (context, server) in [
            ("kind-prod", "https://api.prod.example.com"),
            ("minikube", "https://34.1.2.3"),
            ("shared", "https://10.0.0.1:6443"),
            ("shared", "https://apiserver:6443"),
            ("minikubes", "https://192.168.49.2:8443"),
            ("prod", "https://127.0.0.1.example.com"),
            ("prod", "https://localhost.example.com:443"),
            ("prod", "https://[2001:db8::1]:6443"),
            ("prod", ""),
        ] {
            assert!(!is_local(context, server), "{context} {server}");
        }
    }
}
