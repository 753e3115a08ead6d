//! How far a rollout is, read from a workload and its pods. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::foreign::said;
use crate::cluster::obstacles::word;
use crate::report::plain_line;

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) enum Progress {
    /// On its way; what it waits for.
    Going(String),
    Done,
    /// It will not succeed by itself.
    Failed(Failure),
}

/// Why a rollout will not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) enum Failure {
    /// An image cannot be had.
    Image { pod: String, container: String, image: String, reason: String, message: String },
    /// A container cannot be started, or ends again and again.
    Container { pod: String, container: String, reason: String, message: String },
    /// The controller cannot make pods: a quota, a policy, a webhook.
    NoPods { message: String },
    /// The workload's own deadline (`progressDeadlineSeconds`) is over.
    Deadline { message: String },
}

const IMAGE_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];
const CONTAINER_REASONS: [&str; 4] =
    ["CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"];

/// Reads the state of `workload`'s rollout; `before` are the uids of the pods that it had when it was changed, whose
/// troubles are not the change's.
pub(in crate::cluster) fn progress(workload: &Value, pods: &[Value], before: &BTreeSet<String>) -> Progress {
    let new = pods.iter().filter(|pod| is_new(pod, before));
    if let Some(failure) = new.clone().find_map(failure_of) {
        return Progress::Failed(failure);
    }
    let status = &workload["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < workload["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Progress::Going("the change is being taken up".to_owned());
    }
    if let Some(failure) = condition_failure(status) {
        return Progress::Failed(failure);
    }
    let (wanted, updated, available, old) = match workload["kind"].as_str() {
        Some("DaemonSet") => {
            (count("desiredNumberScheduled"), count("updatedNumberScheduled"), count("numberAvailable"), 0)
        }
        Some("StatefulSet") => {
            let wanted = workload["spec"]["replicas"].as_i64().unwrap_or(1);
            let settled = status["currentRevision"] == status["updateRevision"];
            // Once all are updated, `updatedReplicas` is no longer counted and is 0 on older servers.
            let updated = if settled { count("replicas") } else { count("updatedReplicas") };
            (wanted, updated, count("readyReplicas"), 0)
        }
        _ => {
            let wanted = workload["spec"]["replicas"].as_i64().unwrap_or(1);
            let updated = count("updatedReplicas");
            (wanted, updated, count("availableReplicas"), count("replicas") - updated)
        }
    };
    let waits = new.filter_map(waiting).next().map(|why| format!(": {why}")).unwrap_or_default();
    if updated < wanted {
        Progress::Going(format!("{updated} of {wanted} pods are new{waits}"))
    } else if old > 0 {
        Progress::Going(format!("{updated} of {wanted} pods are new, {old} old ones are ending{waits}"))
    } else if available < wanted {
        Progress::Going(format!("{available} of {wanted} new pods are ready{waits}"))
    } else {
        Progress::Done
    }
}

fn is_new(pod: &Value, before: &BTreeSet<String>) -> bool {
    let metadata = &pod["metadata"];
    metadata["deletionTimestamp"].is_null()
        && !metadata["uid"].as_str().is_some_and(|uid| before.contains(uid))
}

/// A Deployment's own verdict.
fn condition_failure(status: &Value) -> Option<Failure> {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find_map(|condition| {
        let message = plain_line(word(&condition["message"]));
        match (condition["type"].as_str()?, condition["status"].as_str()?, condition["reason"].as_str()?) {
            ("ReplicaFailure", "True", "FailedCreate") => Some(Failure::NoPods { message }),
            ("Progressing", "False", "ProgressDeadlineExceeded") => Some(Failure::Deadline { message }),
            _ => None,
        }
    })
}

/// The state of a pod's containers that will not pass by waiting.
pub(in crate::cluster) fn failure_of(pod: &Value) -> Option<Failure> {
    let name = word(&pod["metadata"]["name"]);
    statuses(pod).find_map(|status| {
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str()?.to_owned();
        let (pod, container) = (name.to_owned(), word(&status["name"]).to_owned());
        let message = plain_line(&said(status));
        if IMAGE_REASONS.contains(&reason.as_str()) {
            let image = word(&status["image"]).to_owned();
            return Some(Failure::Image { pod, container, image, reason, message });
        }
        CONTAINER_REASONS.contains(&reason.as_str()).then_some(Failure::Container {
            pod,
            container,
            reason,
            message,
        })
    })
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    lists.into_iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten())
}

/// What a pod that is not ready yet waits for.
fn waiting(pod: &Value) -> Option<String> {
    let name = word(&pod["metadata"]["name"]);
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let unscheduled = conditions.into_iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    if let Some(condition) = unscheduled {
        return Some(format!("{name} has no node: {}", plain_line(word(&condition["message"]))));
    }
    statuses(pod).find_map(|status| {
        let reason = status["state"]["waiting"]["reason"].as_str()?;
        Some(format!("{name}, container {}: {reason}", word(&status["name"])))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
    }

    fn state(workload: &Value) -> Progress {
        progress(workload, &[], &BTreeSet::new())
    }

    fn going(progress: Progress) -> String {
        match progress {
            Progress::Going(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_deployment_is_done_when_kubectl_says_so() {
        let old = deployment(json!({"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2}));
        assert!(going(state(&old)).contains("taken up"));
        let status = |updated, available, replicas| {
            json!({"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available,
                   "replicas": replicas})
        };
        assert_eq!(going(state(&deployment(status(1, 2, 3)))), "1 of 2 pods are new");
        assert!(going(state(&deployment(status(2, 2, 3)))).contains("1 old ones are ending"));
        assert_eq!(going(state(&deployment(status(2, 1, 2)))), "1 of 2 new pods are ready");
        assert_eq!(state(&deployment(status(2, 2, 2))), Progress::Done);
    }

    #[test]
    fn other_kinds_count_in_their_own_words() {
        let sts = |status: Value| json!({"kind": "StatefulSet", "metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": status});
        let moving = json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "currentRevision": "a",
                            "updateRevision": "b"});
        assert_eq!(going(state(&sts(moving))), "0 of 1 pods are new");
        let settled = json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "currentRevision": "b",
                             "updateRevision": "b"});
        assert_eq!(state(&sts(settled)), Progress::Done);
        let ds = json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": {"observedGeneration": 1,
            "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}});
        assert_eq!(going(state(&ds)), "2 of 3 new pods are ready");
    }

    fn pod(uid: &str, reason: &str) -> Value {
        json!({"metadata": {"name": "demo-1", "uid": uid}, "status": {"containerStatuses": [
            {"name": "devsync-agent", "image": "agent:1", "state": {"waiting": {"reason": reason, "message": "no"}}}]}})
    }

    #[test]
    fn an_image_that_cannot_be_had_fails_at_once() {
        let busy = deployment(json!({"observedGeneration": 1}));
        let failed = progress(&busy, &[pod("new", "ErrImagePull")], &BTreeSet::new());
        let Progress::Failed(Failure::Image { image, container, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!((image.as_str(), container.as_str()), ("agent:1", "devsync-agent"));
        let crash = progress(&busy, &[pod("new", "CrashLoopBackOff")], &BTreeSet::new());
        assert!(matches!(crash, Progress::Failed(Failure::Container { .. })));
        assert!(matches!(
            progress(&busy, &[pod("n", "ContainerCreating")], &BTreeSet::new()),
            Progress::Going(_)
        ));
    }

    #[test]
    fn a_start_that_failed_before_a_back_off_is_told() {
        let mut pod = pod("new", "CrashLoopBackOff");
        let end = json!({"terminated": {"reason": "StartError", "message": "exec /devsync-agent: exec format error"}});
        pod["status"]["containerStatuses"][0]["lastState"] = end;
        let Some(Failure::Container { message, .. }) = failure_of(&pod) else { panic!("{pod}") };
        assert_eq!(message, "no: exec /devsync-agent: exec format error");
    }

    #[test]
    fn an_old_pods_troubles_are_not_the_rollouts() {
        let busy = deployment(json!({"observedGeneration": 1}));
        let before = BTreeSet::from(["old".to_owned()]);
        assert!(matches!(progress(&busy, &[pod("old", "ImagePullBackOff")], &before), Progress::Going(_)));
        let mut ending = pod("new", "ImagePullBackOff");
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(matches!(progress(&busy, &[ending], &before), Progress::Going(_)));
    }

    #[test]
    fn a_refused_pod_is_the_controllers_condition() {
        let message = "pods \"x\" is forbidden: exceeded quota: q";
        let refused = deployment(json!({"observedGeneration": 2, "conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]}));
        assert_eq!(state(&refused), Progress::Failed(Failure::NoPods { message: message.to_owned() }));
        let late = deployment(json!({"observedGeneration": 2, "conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]}));
        assert!(matches!(state(&late), Progress::Failed(Failure::Deadline { .. })));
    }

    #[test]
    fn a_pod_without_a_node_says_why() {
        let pending = json!({"metadata": {"name": "demo-2", "uid": "n"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}]}});
        let workload = deployment(json!({"observedGeneration": 2, "updatedReplicas": 1}));
        let text = going(progress(&workload, &[pending], &BTreeSet::new()));
        assert_eq!(text, "1 of 2 pods are new: demo-2 has no node: Insufficient cpu");
    }
}
