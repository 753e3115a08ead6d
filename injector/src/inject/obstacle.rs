//! Why devsync may not come into a pod: it would not start, would never end, or would not be admitted.

use devsync_protocol::contract::{
    AGENT_CONTAINER, INSTALL_CONTAINER, KEYS_VOLUME, SEED_CONTAINER, VOLUME, WORKSPACE,
};
use serde_json::Value;

use super::pod::Pod;
use super::template::list;
use crate::pid1::insists_on_pid_1;
use crate::security::{Level, stated_uid};

/// The error says why nothing is injected, and the way out.
pub(super) fn check(pod: &Pod<'_>) -> Result<(), String> {
    let found = platform(pod)
        .or_else(|| mirror(pod))
        .or_else(|| ending(pod))
        .or_else(|| process_namespace(pod))
        .or_else(|| names(pod))
        .or_else(|| level(pod));
    found.map_or(Ok(()), |(why, hint)| Err(format!("not injected: {why}; hint: {hint}")))
}

type Obstacle = Option<(String, String)>;

fn obstacle(why: impl Into<String>, hint: impl Into<String>) -> Obstacle {
    Some((why.into(), hint.into()))
}

fn platform(pod: &Pod<'_>) -> Obstacle {
    let spec = &pod.spec;
    let field = |name: &str| spec.get(name).unwrap_or(&Value::Null);
    let selector = field("nodeSelector");
    let labels = ["kubernetes.io/os", "beta.kubernetes.io/os"];
    let is_windows =
        field("os")["name"] == "windows" || labels.iter().any(|label| selector[label] == "windows");
    if is_windows {
        return obstacle("it runs on Windows, the agent on Linux", "a Linux image for development");
    }
    if field("hostPID") == true {
        return obstacle(
            "it uses the node's process namespace (hostPID), where an agent would reach every process",
            "leave hostPID out in development",
        );
    }
    None
}

/// A static pod is a file on its node; what the API server has is an image of it.
fn mirror(pod: &Pod<'_>) -> Obstacle {
    let annotations = &pod.template.get("metadata").unwrap_or(&Value::Null)["annotations"];
    let source = annotations["kubernetes.io/config.source"].as_str();
    if annotations["kubernetes.io/config.mirror"].is_string() || source.is_some_and(|source| source != "api")
    {
        return obstacle("it is a static pod, made from a file on its node", "devsync inject on that file");
    }
    None
}

/// Beside an ordinary container that runs for ever, a pod that is to end never does.
fn ending(pod: &Pod<'_>) -> Obstacle {
    let policy = pod.spec.get("restartPolicy").and_then(Value::as_str).unwrap_or("Always");
    if policy != "Always" && !pod.place.native_sidecars {
        return obstacle(
            format!(
                "its pods end (restartPolicy {policy}), and a sidecar would keep them from it before Kubernetes 1.29"
            ),
            "run the same image in a Deployment",
        );
    }
    None
}

fn process_namespace(pod: &Pod<'_>) -> Obstacle {
    let (name, init) = pod.containers().iter().find_map(|container| {
        Some((container["name"].as_str().unwrap_or_default(), insists_on_pid_1(container)?))
    })?;
    obstacle(
        format!(
            "container {name} starts {init}, which must be process 1 and would end in a shared process namespace"
        ),
        "devsync attach --via ephemeral",
    )
}

/// Names that are devsync's here: with them taken, eject could not tell what is whose.
fn names(pod: &Pod<'_>) -> Obstacle {
    for (kind, field) in [("container", "containers"), ("container", "initContainers"), ("volume", "volumes")]
    {
        let taken = list(&pod.spec, field).iter().filter_map(|item| item["name"].as_str());
        if let Some(name) = taken.into_iter().find(|name| is_ours(name)) {
            return obstacle(format!("it has a {kind} {name} of its own, a name of devsync's"), "rename it");
        }
    }
    let all = list(&pod.spec, "containers").iter().chain(list(&pod.spec, "initContainers"));
    let mounts = all.flat_map(|container| container["volumeMounts"].as_array().into_iter().flatten());
    let name = mounts.filter_map(|mount| mount["name"].as_str()).find(|name| is_ours(name))?;
    obstacle(format!("it mounts a volume {name} of its own, a name of devsync's"), "rename it")
}

/// Containers and volumes that devsync adds.
pub(crate) fn is_ours(name: &str) -> bool {
    let numbered = |base: &str| {
        let number = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    [AGENT_CONTAINER, INSTALL_CONTAINER, SEED_CONTAINER, VOLUME, KEYS_VOLUME, WORKSPACE].contains(&name)
        || numbered(SEED_CONTAINER)
        || numbered(WORKSPACE)
}

/// The restricted level has no root, and beside a root app nobody else is of use.
fn level(pod: &Pod<'_>) -> Obstacle {
    let is_root = stated_uid(&pod.spec_value(), pod.app()) == Some(0);
    if pod.place.level == Level::Restricted && is_root {
        let app = pod.app()["name"].as_str().unwrap_or_default();
        return obstacle(
            format!("container {app} runs as root, which the namespace's level restricted permits to nobody"),
            "runAsUser and runAsGroup of a user, in its securityContext",
        );
    }
    None
}
