//! An image for another architecture than its node's: what the runtime says of it, and what to do.

use devsync_protocol::contract::AGENT_CONTAINER;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::Value;
use tokio::time::timeout;

use super::Cluster;
use crate::report::plain_line;

/// The kernel's words for it (ENOEXEC), which every runtime passes on: in a container's log, or as its state's message.
const WORDS: &str = "exec format error";

/// What is the matter, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) cause: String,
    pub(super) hint: String,
}

/// Explains it, where `said` are a container's last words or its state's message and tell of it. Which architecture the
/// node has is asked, and left out where that is not allowed.
pub(super) async fn foreign(cluster: &Cluster, pod: &str, container: &str, said: &str) -> Option<Foreign> {
    if !said.to_lowercase().contains(WORDS) {
        return None;
    }
    let pod = async {
        let pod = timeout(super::ANSWER_WITHIN, cluster.pods().get(pod)).await.ok()?.ok()?;
        serde_json::to_value(pod).ok()
    };
    let pod = pod.await.unwrap_or_default();
    let machine = async {
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = nodes.get(pod["spec"]["nodeName"].as_str()?);
        let info = timeout(super::ANSWER_WITHIN, node).await.ok()?.ok()?.status?.node_info?;
        Some(info.architecture)
    };
    let machine = machine.await;
    Some(explained(&pod, container, machine.as_deref()))
}

fn explained(pod: &Value, container: &str, machine: Option<&str>) -> Foreign {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let all = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let image = all.into_iter().find(|c| c["name"] == container).and_then(|c| c["image"].as_str());
    let image = plain_line(image.unwrap_or("(not known)"));
    let machine = machine.map(plain_line);
    let node = match (pod["spec"]["nodeName"].as_str().map(plain_line), &machine) {
        (Some(node), Some(machine)) => format!("the node {node}, which is {machine}"),
        (Some(node), None) => format!("the node {node}"),
        (None, _) => "its node".to_owned(),
    };
    let cause = format!("the image {image} is for another architecture than {node}: {WORDS}");
    let wanted = machine.unwrap_or_else(|| "that architecture".to_owned());
    let hint = match container.starts_with(AGENT_CONTAINER) {
        true => format!(
            "name an agent for {wanted}, or the index of all: --agent-image IMAGE (`docker buildx imagetools inspect \
             {image}` shows what an image is for)"
        ),
        false => format!(
            "build it for {wanted} (kubectl get nodes -L kubernetes.io/arch); a script without its first line, #!, ends \
             in the same words"
        ),
    };
    Foreign { cause, hint }
}

/// What a container's status says of why it does not run: now, or at its last end.
pub(super) fn said(status: &Value) -> String {
    let state = |state: &Value| {
        let messages =
            ["waiting", "terminated"].map(|at| state[at]["message"].as_str().unwrap_or_default().to_owned());
        messages.into_iter().filter(|message| !message.is_empty()).collect::<Vec<_>>()
    };
    [state(&status["state"]), state(&status["lastState"])].concat().join(": ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "demo:1"},
            {"name": "devsync-agent", "image": "agent:1"}]}})
    }

    #[test]
    fn an_agent_for_another_machine_is_named_with_its_node() {
        let Foreign { cause, hint } = explained(&pod(), "devsync-agent", Some("arm64"));
        let expected = "the image agent:1 is for another architecture than the node n1, which is arm64: exec format error";
        assert_eq!(cause, expected);
        assert!(hint.contains("an agent for arm64") && hint.contains("--agent-image"), "{hint}");
        let Foreign { cause, hint } = explained(&pod(), "app", None);
        assert!(
            cause.contains("demo:1") && cause.contains("the node n1:") && !hint.contains("agent"),
            "{cause} {hint}"
        );
        // An ephemeral one has a number.
        let ephemeral =
            json!({"spec": {"ephemeralContainers": [{"name": "devsync-agent-2", "image": "a:2"}]}});
        let Foreign { cause, hint } = explained(&ephemeral, "devsync-agent-2", Some("amd64"));
        assert!(cause.contains("a:2") && hint.contains("--agent-image"), "{cause} {hint}");
    }

    /// As containerd with runc 1.0, runc 1.2 and cri-o with crun have the kubelet write it.
    #[test]
    fn a_status_tells_it_in_each_runtime_s_words() {
        let start = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create \
                     failed: unable to start container process: exec: \"/devsync-agent\": exec format error: unknown";
        for status in [
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed"}},
                "lastState": {"terminated": {"reason": "StartError", "exitCode": 128, "message": start}}}),
            json!({"state": {"terminated": {"reason": "StartError", "exitCode": 128, "message": start}}}),
            json!({"state": {"waiting": {"reason": "CreateContainerError", "message": "container create failed: \
                exec container process `/devsync-agent`: Exec format error"}}, "lastState": {}}),
        ] {
            assert!(said(&status).to_lowercase().contains(WORDS), "{status}");
        }
        assert_eq!(said(&json!({"state": {"running": {}}})), "");
    }
}
