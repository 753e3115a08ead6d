//! A workload's pods: is there one, does its image come, has it an agent?

use devsync_protocol::finding::Finding;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::rights::Rights;
use crate::cluster::target::{PodTarget, WorkloadRef};
use crate::cluster::{Cluster, find, state};
use crate::doctor::laptop::failure;
use crate::report::{count, plain_line};

/// What every container waits for at first.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    pub(super) pod: Option<PodTarget>,
}

/// Looks once; nothing is waited for.
pub(super) async fn look(
    cluster: &Cluster,
    workload: &WorkloadRef,
    container: Option<&str>,
    rights: &Rights,
) -> Seen {
    let pods = match find::all(cluster, workload).await {
        Ok((pods, _)) => pods,
        Err(error) => return Seen { findings: vec![failure("pods", &error)], pod: None },
    };
    let flags = &cluster.flags;
    let mut findings: Vec<Finding> = pods.iter().flat_map(|pod| stuck(pod, flags)).collect();
    let pod = match state::attachable(&pods, container) {
        Ok(found) => {
            findings.push(counted(workload, pods.len(), found.len(), flags));
            let with_agent = found.iter().position(|pod| pod.has_agent).unwrap_or(0);
            found.into_iter().nth(with_agent)
        }
        Err(error) => {
            findings.push(failure("pods", &error));
            None
        }
    };
    if let Some(pod) = &pod {
        findings.push(agent(pod, workload, flags));
        if !pod.has_agent {
            findings.extend(rights.may_add(&cluster.namespace));
        }
    }
    Seen { findings, pod }
}

fn counted(workload: &WorkloadRef, all: usize, attachable: usize, flags: &str) -> Finding {
    let text = format!("{workload} has {}, of which {attachable} can be attached to", count(all, "pod"));
    match (all, attachable) {
        (0, _) => Finding::problem(
            "pods",
            format!("{workload} has no pods"),
            format!("kubectl describe {workload} {flags}"),
        ),
        (_, 0) => Finding::problem("pods", text, format!("kubectl describe {workload} {flags}")),
        _ => Finding::ok("pods", text),
    }
}

/// Containers that do not start: most of all, images that are not pulled.
fn stuck(pod: &Pod, flags: &str) -> Vec<Finding> {
    let name = pod.name_any();
    let Some(status) = &pod.status else { return Vec::new() };
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let all = lists.into_iter().flatten().flatten();
    all.filter_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| !STARTING.contains(reason))?;
        let message = waiting.message.as_ref().map(|text| format!(": {}", plain_line(text))).unwrap_or_default();
        let text = format!("container {} of pod/{name} waits: {reason}{message}", container.name);
        let is_image = reason.contains("Image");
        let (topic, fix) = match is_image {
            true => ("image", format!("does {:?} exist, and has the pod imagePullSecrets for it? kubectl describe pod {name} {flags}", container.image)),
            false => ("container", format!("kubectl logs {name} -c {} --previous {flags}", container.name)),
        };
        Some(Finding::problem(topic, text, fix))
    })
    .collect()
}

fn agent(pod: &PodTarget, workload: &WorkloadRef, flags: &str) -> Finding {
    match &pod.agent {
        Some(agent) => {
            let kind = if pod.is_agent_ephemeral() { "an ephemeral container" } else { "a sidecar" };
            Finding::ok("agent", format!("container {agent} of {pod} is {kind}, and runs"))
        }
        None => Finding::warning(
            "agent",
            format!("{pod} has no agent yet"),
            format!("devsync attach {workload} {flags} adds one, and says first what it will change"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_that_does_not_come_is_named() {
        let waiting = |name: &str, reason: &str| {
            json!({"name": name, "image": "shop/api:9", "imageID": "", "ready": false, "restartCount": 0,
                   "state": {"waiting": {"reason": reason, "message": "no\nsuch"}}})
        };
        let pod = json!({"metadata": {"name": "api-0"}, "status": {"containerStatuses": [
            waiting("app", "ImagePullBackOff"), waiting("ok", "ContainerCreating"), waiting("x", "CrashLoopBackOff")]}});
        let found = stuck(&serde_json::from_value(pod).expect("a pod"), "-n shop");
        assert_eq!(found.iter().map(|f| f.topic.as_str()).collect::<Vec<_>>(), ["image", "container"]);
        assert_eq!(found[0].text, "container app of pod/api-0 waits: ImagePullBackOff: no\\nsuch");
        assert!(found[0].fix.as_deref().is_some_and(|fix| fix.contains("\"shop/api:9\"")));
        assert!(
            found[1].fix.as_deref().is_some_and(|fix| fix.contains("kubectl logs api-0 -c x --previous"))
        );
    }
}
