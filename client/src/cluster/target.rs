//! What is meant and what was found: plain data, read from API objects.

use std::fmt;

use devsync_protocol::contract::{AGENT_CONTAINER, annotation};
use devsync_protocol::path::PodPath;
use devsync_protocol::restart::RestartMode;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::cli::{TargetWord, WorkloadKind};

/// A target in a cluster, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkloadRef {
    Named { kind: WorkloadKind, name: String },
    Selector(String),
}

impl WorkloadRef {
    /// `None` for targets that are in no cluster.
    pub fn of(word: &TargetWord) -> Option<Self> {
        match word {
            TargetWord::Workload { kind, name } => Some(Self::Named { kind: *kind, name: name.clone() }),
            TargetWord::Selector(labels) => Some(Self::Selector(labels.clone())),
            TargetWord::Pid(_)
            | TargetWord::Ssh { .. }
            | TargetWord::Container { .. }
            | TargetWord::Named(_) => None,
        }
    }

    pub fn pod(name: &str) -> Self {
        Self::Named { kind: WorkloadKind::Pod, name: name.to_owned() }
    }
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { kind, name } => write!(f, "{kind}/{name}"),
            Self::Selector(labels) => write!(f, "-l {labels}"),
        }
    }
}

/// A container in a pod that can be attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct PodTarget {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    /// The app's container.
    pub container: String,
    /// Its id as the cgroup names it: 64 hexadecimal digits.
    pub container_id: String,
    /// The running container with an agent for it: a sidecar, or an ephemeral one.
    pub agent: Option<String>,
    pub has_agent: bool,
    pub ready: bool,
    /// How often the app's container has been restarted.
    pub restarts: i32,
    pub node: Option<String>,
    /// The whole object, as it was when it was found.
    pub object: Box<Pod>,
}

impl fmt::Display for PodTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pod/{}", self.pod)
    }
}

impl PodTarget {
    /// Reads the pod; `None` while the container does not run.
    pub(super) fn of(pod: &Pod, container: &str) -> Option<Self> {
        let status = container_status(pod, container)?;
        status.state.as_ref()?.running.as_ref()?;
        let agent = agent_container(pod, container);
        Some(Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            container: container.to_owned(),
            container_id: short_id(status.container_id.as_deref()?).to_owned(),
            has_agent: agent.is_some(),
            agent,
            ready: is_ready(pod),
            restarts: status.restart_count,
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            object: Box::new(pod.clone()),
        })
    }
}

impl PodTarget {
    /// Where the pod says that files go, for who does not say otherwise. Its annotations name no other place than one in
    /// the pod.
    pub fn sync_root(&self) -> Option<PodPath> {
        let says = |name: &str| PodPath::new(self.annotation(name)?).ok().filter(|path| !path.is_root());
        says(annotation::SYNC_ROOT).or_else(|| says(annotation::WORKSPACE))
    }

    /// How the pod says that its app is restarted.
    pub fn restart(&self) -> Option<RestartMode> {
        self.annotation(annotation::RESTART)?.parse().ok()
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// True where the agent is an ephemeral container: it ends with the app's first process, and stays out of new pods.
    pub fn is_agent_ephemeral(&self) -> bool {
        let spec = self.object.spec.as_ref();
        let mut ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_ref()).into_iter().flatten();
        ephemeral.any(|container| Some(&container.name) == self.agent.as_ref())
    }
}

/// `containerd://ID` without its runtime.
pub fn short_id(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_runtime, id)| id)
}

/// An ordinary container's status.
pub(super) fn container_status<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

/// The running container whose agent can reach `container`: the sidecar, else the newest ephemeral one for it.
fn agent_container(pod: &Pod, container: &str) -> Option<String> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    let sidecars = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let mut sidecars = sidecars.filter(|s| s.name == AGENT_CONTAINER && is_running(s));
    if let Some(sidecar) = sidecars.next() {
        return Some(sidecar.name.clone());
    }
    let ephemeral = spec.ephemeral_containers.as_ref()?.iter();
    let running = |name: &str| {
        let statuses = status.ephemeral_container_statuses.iter().flatten();
        statuses.into_iter().any(|s| s.name == name && is_running(s))
    };
    // They are appended, so the last is the newest.
    let mut ours = ephemeral.rev().filter(|e| {
        let target = e.target_container_name.as_deref();
        e.name.starts_with(AGENT_CONTAINER) && target.is_none_or(|t| t == container) && running(&e.name)
    });
    ours.next().map(|e| e.name.clone())
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The name that was probably meant, as a hint.
pub fn did_you_mean(wanted: &str, names: &[&str], before: &str) -> Option<String> {
    let near = names.iter().map(|name| (distance(wanted, name), name)).min()?;
    (near.0 <= 2.max(wanted.len() / 3)).then(|| format!("did you mean {before}{}?", near.1))
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_where_files_go_and_how_its_app_restarts() {
        let pod = |annotations: serde_json::Value| {
            let status = serde_json::json!({"containerStatuses": [{"name": "app", "containerID": "c://1", "image": "i",
                "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
            let metadata = serde_json::json!({"name": "demo", "uid": "u", "annotations": annotations});
            let pod = serde_json::json!({"metadata": metadata, "status": status});
            PodTarget::of(&serde_json::from_value(pod).expect("a pod"), "app").expect("one that runs")
        };
        let said = pod(serde_json::json!({annotation::SYNC_ROOT: "/srv", annotation::RESTART: "signal:HUP"}));
        assert_eq!(said.sync_root(), PodPath::new("/srv").ok());
        assert_eq!(said.restart().map(|mode| mode.to_string()).as_deref(), Some("signal:HUP"));
        let volume = pod(serde_json::json!({annotation::SYNC_ROOT: "/", annotation::WORKSPACE: "/volume"}));
        assert_eq!((volume.sync_root(), volume.restart()), (PodPath::new("/volume").ok(), None));
        let none = pod(serde_json::json!({annotation::SYNC_ROOT: "src", annotation::RESTART: "now"}));
        assert_eq!((none.sync_root(), none.restart()), (None, None));
    }

    #[test]
    fn a_slip_of_the_fingers_is_seen() {
        let names = ["demo", "web", "worker"];
        assert_eq!(did_you_mean("dmeo", &names, "deploy/"), Some("did you mean deploy/demo?".to_owned()));
        assert_eq!(did_you_mean("wroker", &names, ""), Some("did you mean worker?".to_owned()));
        assert_eq!(did_you_mean("database", &names, ""), None);
        assert_eq!(did_you_mean("x", &[], ""), None);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("kitten", "sitting")), (3, 3, 3));
    }
}
