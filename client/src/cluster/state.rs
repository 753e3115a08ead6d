//! What state pods are in: which can be attached to, which are still coming, and what is wrong with the others.

use std::time::Duration;

use devsync_protocol::contract::{AGENT_CONTAINER, annotation};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::LogParams;
use tokio::time::timeout;

use super::Cluster;
use super::foreign::foreign;
use super::target::{PodTarget, WorkloadRef, container_status, did_you_mean};
use crate::error::{CommandError, Kind};
use crate::report::plain_line;

/// A container that runs for so long and is not ready is attached to nevertheless: its readiness may be what is
/// being worked on.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pod that no node takes may be taken after an old one has gone.
const UNSCHEDULABLE: Duration = Duration::from_secs(5);
/// Pods may take so long to be made.
const NO_PODS: Duration = Duration::from_secs(10);
/// Names the container that is meant where nobody says.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Sidecars of service meshes: never the app.
const PROXIES: [&str; 3] = ["istio-proxy", "linkerd-proxy", "envoy"];
/// Waiting for these reasons is in vain, unless somebody does something.
const BROKEN: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PostStartHookError",
];
/// Of a broken container's log, for the error.
const LOG_LINES: i64 = 10;
const LOG_BYTES: i64 = 4096;
const LOG_WITHIN: Duration = Duration::from_secs(5);

pub(super) enum Verdict {
    /// Newest ready first; never empty.
    Found(Vec<PodTarget>),
    Wait(String),
    Broken(Box<Broken>),
}

/// A pod that will not become ready by waiting.
pub(super) struct Broken {
    pod: String,
    /// The container that is broken, where it is one.
    container: Option<String>,
    what: String,
    restarted: bool,
}

/// Judges the pods of a workload, `waited` after the first look.
pub(super) fn judge(
    workload: &WorkloadRef,
    pods: &[Pod],
    container: Option<&str>,
    waited: Duration,
) -> Result<Verdict, CommandError> {
    let found = attachable(pods, container)?;
    let settled = |target: &PodTarget| target.ready || waited >= PATIENCE || runs_for(target) >= PATIENCE;
    if found.iter().any(settled) {
        return Ok(Verdict::Found(found));
    }
    if let Some(starting) = found.first() {
        return Ok(Verdict::Wait(format!("{starting} is not ready yet")));
    }
    let alive: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    if let Some(broken) = alive.iter().find_map(|pod| broken(pod, waited)) {
        return Ok(Verdict::Broken(Box::new(broken)));
    }
    if let Some(pending) = alive.first() {
        let name = pending.name_any();
        let phase = pending.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let waiting = waiting(pending).map(|(container, state)| format!(": container {container} {state}"));
        return Ok(Verdict::Wait(format!(
            "pod/{name} is {}{}",
            phase.to_lowercase(),
            waiting.unwrap_or_default()
        )));
    }
    if !pods.is_empty() {
        return Ok(Verdict::Wait(format!(
            "the pods of {workload} are being deleted, new ones are not there yet"
        )));
    }
    if waited < NO_PODS && !matches!(workload, WorkloadRef::Selector(_)) {
        return Ok(Verdict::Wait(format!("{workload} has no pods yet")));
    }
    Err(CommandError::new(format!("{workload} has no pods"))
        .kind(Kind::Cluster)
        .hint("kubectl get pods --show-labels shows which there are; -n names another namespace"))
}

/// The pods whose app runs, newest ready first.
pub(super) fn attachable(pods: &[Pod], container: Option<&str>) -> Result<Vec<PodTarget>, CommandError> {
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let container = choose(pod, container)?;
        supported(pod)?;
        if is_waiting(pod, &container).is_none() {
            found.extend(PodTarget::of(pod, &container));
        }
    }
    let age = |target: &PodTarget| target.object.metadata.creation_timestamp.clone();
    found.sort_by_key(|target| std::cmp::Reverse((target.ready, age(target))));
    Ok(found)
}

fn runs_for(target: &PodTarget) -> Duration {
    let state = container_status(&target.object, &target.container).and_then(|status| status.state.as_ref());
    let started = state.and_then(|state| state.running.as_ref()?.started_at.as_ref());
    let age = started.map(|time| Timestamp::now().duration_since(time.0));
    age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
}

/// The container that is meant: by name, by annotation, or because it is the only one that is the user's.
pub(super) fn choose(pod: &Pod, wanted: Option<&str>) -> Result<String, CommandError> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ours = containers.iter().map(|c| c.name.as_str()).filter(|name| *name != AGENT_CONTAINER);
    let names: Vec<&str> = ours.collect();
    let pod_name = pod.name_any();
    if let Some(wanted) = wanted {
        if names.contains(&wanted) {
            return Ok(wanted.to_owned());
        }
        let first = || names.first().map(|name| format!("name one: -c {name}"));
        let hint = did_you_mean(wanted, &names, "-c ").or_else(first);
        return Err(CommandError::new(format!("pod/{pod_name} has no container {wanted}"))
            .kind(Kind::Cluster)
            .cause(format!("its containers: {}", names.join(", ")))
            .hint_opt(hint));
    }
    // devsync's own may list several; the first that is there is meant.
    let own = pod.annotations().get(annotation::CONTAINER).into_iter().flat_map(|names| names.split(','));
    let usual = pod.annotations().get(DEFAULT_CONTAINER).map(String::as_str);
    if let Some(name) = own.map(str::trim).chain(usual).find(|name| names.contains(name)) {
        return Ok(name.to_owned());
    }
    let apps: Vec<&str> = names.iter().copied().filter(|name| !PROXIES.contains(name)).collect();
    match apps.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(CommandError::new(format!("pod/{pod_name} has several containers: {}", names.join(", ")))
            .kind(Kind::Cluster)
            .hint(format!(
                "say which: -c {}; or the annotation {DEFAULT_CONTAINER} says it once and for all",
                apps.first().or(names.first()).copied().unwrap_or("NAME")
            ))),
    }
}

/// Refuses pods that no agent can work in.
fn supported(pod: &Pod) -> Result<(), CommandError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let refuse = |why: &str, hint: &str| {
        let what = format!("pod/{} cannot be attached to", pod.name_any());
        Err(CommandError::new(what).kind(Kind::Cluster).cause(why.to_owned()).hint(hint.to_owned()))
    };
    let os = spec.os.as_ref().map(|os| os.name.as_str());
    let node = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if os.or(node.map(String::as_str)) == Some("windows") {
        return refuse(
            "it runs on a Windows node, and the agent is a Linux program",
            "attach to a pod on a Linux node",
        );
    }
    if spec.host_pid == Some(true) {
        return refuse(
            "it shares the node's processes (hostPID), so an agent in it could reach every process of the node",
            "take hostPID out of the pod's spec",
        );
    }
    Ok(())
}

/// The containers' statuses: init containers first, as they start.
fn states(pod: &Pod) -> impl Iterator<Item = (&str, &ContainerState, i32)> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let own = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let all = init.iter().chain(own);
    all.filter_map(|c| Some((c.name.as_str(), c.state.as_ref()?, c.restart_count)))
}

/// Why a container waits to be started, as `reason: message`.
fn is_waiting(pod: &Pod, container: &str) -> Option<String> {
    let state = container_status(pod, container)?.state.as_ref()?;
    state.waiting.as_ref().map(|w| words(w.reason.as_deref(), w.message.as_deref()))
}

fn waiting(pod: &Pod) -> Option<(&str, String)> {
    states(pod).find_map(|(name, state, _)| {
        if let Some(end) = &state.terminated {
            return (end.exit_code != 0).then(|| (name, format!("ended with exit code {}", end.exit_code)));
        }
        let waiting = state.waiting.as_ref()?;
        Some((name, format!("waits ({})", waiting.reason.as_deref().unwrap_or("no reason given"))))
    })
}

fn words(reason: Option<&str>, message: Option<&str>) -> String {
    let parts = [reason, message].into_iter().flatten().filter(|word| !word.is_empty());
    plain_line(&parts.collect::<Vec<_>>().join(": "))
}

fn broken(pod: &Pod, waited: Duration) -> Option<Broken> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let bad = states(pod).find_map(|(container, state, restarts)| {
        let waiting = state.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| BROKEN.contains(reason))?;
        // Of a container that could not be started the runtime's reason is where the last one's end is told.
        let last = container_status(pod, container).and_then(|s| s.last_state.as_ref()?.terminated.as_ref());
        let why = last.and_then(|end| end.message.as_deref()).filter(|_| restarts > 0);
        let what = words(Some(reason), waiting.message.as_deref());
        let what = why.map_or(what.clone(), |why| format!("{what}: {}", plain_line(why)));
        Some(Broken {
            pod: name.clone(),
            container: Some(container.to_owned()),
            what,
            restarted: restarts > 0,
        })
    });
    if bad.is_some() {
        return bad;
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled.filter(|_| waited >= UNSCHEDULABLE) {
        let what = words(condition.reason.as_deref(), condition.message.as_deref());
        return Some(Broken { pod: name, container: None, what, restarted: false });
    }
    let phase = status.phase.as_deref().unwrap_or_default();
    let unstarted = states(pod).find_map(|(container, state, _)| {
        let end = state.terminated.as_ref().filter(|end| end.reason.as_deref() == Some("StartError"))?;
        Some((container.to_owned(), words(end.reason.as_deref(), end.message.as_deref())))
    });
    if let Some((container, what)) = unstarted {
        return Some(Broken { pod: name, container: Some(container), what, restarted: false });
    }
    if !matches!(phase, "Succeeded" | "Failed") {
        return None;
    }
    let ended = states(pod).find_map(|(container, state, _)| Some((container, state.terminated.as_ref()?)));
    let how = match ended {
        Some((container, end)) => format!(
            "container {container} ended with exit code {}{}",
            end.exit_code,
            end.reason.as_ref().map(|r| format!(" ({r})")).unwrap_or_default()
        ),
        None => words(status.reason.as_deref(), status.message.as_deref()),
    };
    let what = format!("it has ended ({}): {how}", phase.to_lowercase());
    let container = ended.map(|(container, _)| container.to_owned());
    Some(Broken { pod: name, container, what, restarted: false })
}

/// The error about a broken pod, with the last words of its container.
pub(super) async fn explain_broken(
    cluster: &Cluster,
    workload: &WorkloadRef,
    broken: Broken,
) -> CommandError {
    let Broken { pod, container, what, restarted } = broken;
    let title = match workload {
        WorkloadRef::Named { kind: crate::cli::WorkloadKind::Pod, .. } => {
            format!("{workload} cannot be attached to")
        }
        _ => format!("pod/{pod} of {workload} cannot be attached to"),
    };
    let mut cause = what.clone();
    let mut hint = format!("kubectl describe pod {pod} {}", cluster.flags);
    if let Some(container) = &container {
        if !what.contains(container.as_str()) {
            cause = format!("container {container}: {what}");
        }
        if let Some(log) = last_words(cluster, &pod, container, restarted).await {
            if restarted {
                hint = format!("kubectl logs {pod} {} -c {container} --previous", cluster.flags);
            }
            cause = format!("{cause}\nthe last lines of its log:\n{log}");
        }
    }
    if let Some(container) = &container
        && let Some(why) = foreign(cluster, &pod, container, &cause).await
    {
        (cause, hint) = (format!("container {container}: {}\n{cause}", why.cause), why.hint);
    }
    CommandError::new(title).kind(Kind::Cluster).cause(cause).hint(hint)
}

/// Indented; `None` where there are none or they may not be read.
async fn last_words(cluster: &Cluster, pod: &str, container: &str, previous: bool) -> Option<String> {
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(LOG_LINES),
        limit_bytes: Some(LOG_BYTES),
        ..LogParams::default()
    };
    let log = timeout(LOG_WITHIN, cluster.pods().logs(pod, &params)).await.ok()?.ok()?;
    let log = super::rollout::indented(&log);
    (!log.is_empty()).then_some(log)
}

#[cfg(test)]
mod tests;
