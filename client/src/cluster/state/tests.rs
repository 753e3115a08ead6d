//! Verdicts over pods as an API server gives them.

use serde_json::{Value, json};

use super::*;

const NOW: Duration = Duration::ZERO;

/// A pod with the containers `app` and the agent, and the given status.
fn pod(name: &str, status: Value) -> Pod {
    let value = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "app"}, {"name": "devsync-agent"}]},
        "status": status,
    });
    serde_json::from_value(value).expect("a pod")
}

fn running(ready: bool) -> Value {
    let state = json!({"running": {"startedAt": Timestamp::now().to_string()}});
    let container = |name: &str| {
        json!({"name": name, "image": "", "imageID": "", "ready": ready, "restartCount": 0,
               "containerID": format!("containerd://{}", "a".repeat(64)), "state": state})
    };
    let ready = if ready { "True" } else { "False" };
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
           "containerStatuses": [container("app"), container("devsync-agent")]})
}

fn waiting(reason: &str) -> Value {
    json!({"phase": "Pending", "containerStatuses": [
        {"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 3,
         "state": {"waiting": {"reason": reason, "message": "back-off"}}}]})
}

fn verdict(pods: &[Pod], waited: Duration) -> String {
    match judge(&WorkloadRef::pod("x"), pods, None, waited) {
        Ok(Verdict::Found(found)) => {
            let names: Vec<&str> = found.iter().map(|target| target.pod.as_str()).collect();
            format!("found {}", names.join(" "))
        }
        Ok(Verdict::Wait(why)) => format!("wait: {why}"),
        Ok(Verdict::Broken(broken)) => format!("broken: {}", broken.what),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn the_newest_ready_pod_comes_first() {
    let mut young = pod("young", running(true));
    young.metadata.creation_timestamp =
        serde_json::from_value(json!("2026-01-02T00:00:00Z")).expect("a time");
    let starting = pod("starting", running(false));
    let pods = [starting, pod("old", running(true)), young];
    assert_eq!(verdict(&pods, NOW), "found young old starting");
    let found = attachable(&pods, None).expect("pods");
    assert!(found[0].has_agent && found[0].container_id.len() == 64 && found[0].container == "app");
}

#[test]
fn a_pod_that_does_not_get_ready_is_taken_after_a_while() {
    let pods = [pod("a", running(false))];
    assert_eq!(verdict(&pods, NOW), "wait: pod/a is not ready yet");
    assert_eq!(verdict(&pods, PATIENCE), "found a");
}

#[test]
fn what_is_broken_is_said_at_once_unless_another_pod_works() {
    let crashing = pod("a", waiting("CrashLoopBackOff"));
    assert_eq!(verdict(std::slice::from_ref(&crashing), NOW), "broken: CrashLoopBackOff: back-off");
    assert_eq!(verdict(&[crashing, pod("b", running(true))], NOW), "found b");
    let creating = verdict(&[pod("a", waiting("ContainerCreating"))], NOW);
    assert_eq!(creating, "wait: pod/a is pending: container app waits (ContainerCreating)");
}

#[test]
fn a_deleted_pod_is_none() {
    let mut leaving = pod("a", running(true));
    leaving.metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-02T00:00:00Z")).expect("a time");
    let why = "wait: the pods of pod/x are being deleted, new ones are not there yet";
    assert_eq!(verdict(&[leaving], NOW), why);
    assert_eq!(verdict(&[], NOW), "wait: pod/x has no pods yet");
    assert_eq!(verdict(&[], NO_PODS), "error: pod/x has no pods");
}

#[test]
fn an_unschedulable_pod_is_given_a_moment() {
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"});
    let pods = [pod("a", json!({"phase": "Pending", "conditions": [condition]}))];
    assert_eq!(verdict(&pods, NOW), "wait: pod/a is pending");
    assert_eq!(verdict(&pods, UNSCHEDULABLE), "broken: Unschedulable: no node");
}

#[test]
fn the_container_is_named_annotated_or_the_only_one() {
    let mut pod = pod("a", running(true));
    assert_eq!(choose(&pod, None).expect("the only one"), "app");
    let spec = pod.spec.as_mut().expect("a spec");
    for name in ["cache", "istio-proxy"] {
        spec.containers.push(serde_json::from_value(json!({"name": name})).expect("a container"));
    }
    let several = choose(&pod, None).expect_err("several");
    assert_eq!(several.what(), "pod/a has several containers: app, cache, istio-proxy");
    assert_eq!(choose(&pod, Some("cache")).expect("named"), "cache");
    assert!(choose(&pod, Some("devsync-agent")).is_err());
    let annotations = [(DEFAULT_CONTAINER.to_owned(), "cache".to_owned())];
    pod.metadata.annotations = Some(annotations.into());
    assert_eq!(choose(&pod, None).expect("annotated"), "cache");
    let ours = ("devsync.dev/container".to_owned(), "nobody, app".to_owned());
    pod.metadata.annotations.get_or_insert_default().extend([ours]);
    assert_eq!(choose(&pod, None).expect("devsync's own annotation goes first"), "app");
    pod.metadata.annotations = None;
    pod.spec.as_mut().expect("a spec").containers.retain(|c| c.name != "cache");
    assert_eq!(choose(&pod, None).expect("a mesh's proxy is no app"), "app");
}

#[test]
fn pods_that_no_agent_can_work_in_are_refused() {
    let with = |key: &str, value: Value| {
        let mut pod = serde_json::to_value(pod("a", running(true))).expect("a value");
        pod["spec"][key] = value;
        verdict(&[serde_json::from_value(pod).expect("a pod")], NOW)
    };
    assert_eq!(with("hostPID", json!(true)), "error: pod/a cannot be attached to");
    assert_eq!(with("os", json!({"name": "windows"})), "error: pod/a cannot be attached to");
    assert_eq!(
        with("nodeSelector", json!({"kubernetes.io/os": "windows"})),
        "error: pod/a cannot be attached to"
    );
    assert_eq!(with("hostNetwork", json!(true)), "found a");
}
