//! A copy of a pod, with an agent, outside of its Service: for pods that nothing may change.

use devsync_protocol::contract::{ATTACHED_BY, ATTACHED_SINCE, MODIFIED_AT};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Map, Value, json};

use super::add::{AddOptions, Added, Say, Step, agree};
use super::obstacles::{check_pod, check_sidecar, cluster as failure};
use super::rollout::this_one;
use super::sidecar::{explain_apply, level};
use super::{Cluster, PodTarget};
use crate::error::CommandError;
use devsync_injector::agent::{self, Agent, agent_in};
use devsync_injector::security::fit;

/// Marks a pod as a copy that devsync made: of which pod.
pub(super) const COPY_OF: &str = "devsync.dev/copy-of";
/// How long a copy may end in order.
const GRACE: u32 = 5;

/// Makes the copy; `Cluster` finds it by its name then.
pub(super) async fn add(
    cluster: &Cluster,
    target: &PodTarget,
    name: &str,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    let original = serde_json::to_value(&*target.object).unwrap_or_default();
    let spec = &original["spec"];
    check_pod(spec, &target.to_string())?;
    let containers = spec["containers"].as_array().into_iter().flatten();
    let container =
        containers.into_iter().find(|c| c["name"] == *target.container).cloned().unwrap_or_default();
    if agent_in(spec).is_none() {
        check_sidecar(spec, &container, &target.to_string())?;
    }
    if let Some(claim) = claim(spec).filter(|_| !opts.overwrite) {
        return Err(failure(format!("{target} cannot be copied: two would write to one volume"))
            .cause(format!("it mounts the PersistentVolumeClaim {claim}, and so would the copy"))
            .hint("--via sidecar changes the workload itself; --overwrite makes the copy all the same"));
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let there = cluster.ask(&format!("pod/{name} cannot be looked for"), pods.get_opt(name)).await?;
    if let Some(there) = there {
        return match is_copy(&there) && copied_from(&there) == Some(&target.pod) {
            true => Ok(Added::Ready),
            false if is_copy(&there) => Err(failure(format!("pod/{name} is a copy of another pod already"))
                .hint(format!("--copy-to ANOTHER-NAME, or devsync detach pod/{name} {}", cluster.flags))),
            false => Err(failure(format!("there is a pod/{name} already, and devsync did not make it"))
                .hint("--copy-to ANOTHER-NAME")),
        };
    }
    let fit = fit(spec, &container, level(cluster).await?);
    let agent = Agent {
        image: opts.image().to_owned(),
        pull_secret: opts.args.image_pull_secret.clone(),
        ..Agent::new(fit.context.clone())
    };
    let copy = copy(&original, name, &agent);
    say(Step::Plan(format!(
        "pod/{name} in namespace {} of context {}: a copy of {target} with an agent ({}, as {}), without its labels, so \
         that no Service sends it anything; `devsync detach pod/{name}` deletes it",
        target.namespace,
        cluster.context_name(),
        opts.image(),
        fit.words(),
    )));
    if opts.dry_run {
        return Ok(Added::OnlySaid);
    }
    agree(&format!("Make pod/{name}?"), opts).await?;
    let copy: Pod = serde_json::from_value(copy)
        .map_err(|error| failure(format!("{target} cannot be copied")).cause(error))?;
    match tokio::time::timeout(super::ANSWER_WITHIN, pods.create(&PostParams::default(), &copy)).await {
        Ok(Ok(_)) => Ok(Added::Ready),
        Ok(Err(error)) => Err(explain_apply(cluster, error, &format!("pod/{name}"))),
        Err(_) => Err(failure(format!("pod/{name} cannot be made")).cause("the API server did not answer")),
    }
}

/// A volume that outlives the pod, and that others may write to.
fn claim(spec: &Value) -> Option<&str> {
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    volumes.find_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

/// The pod that a copy was made of.
fn copied_from(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(COPY_OF)
}

/// True for a pod that devsync made: the mark alone could have been copied onto a pod that somebody else looks after.
pub(super) fn is_copy(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let is_marked = metadata.annotations.as_ref().is_some_and(|marks| marks.contains_key(COPY_OF));
    let is_alone = metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
        && metadata.labels.as_ref().is_none_or(std::collections::BTreeMap::is_empty);
    is_marked && is_alone
}

/// Deletes a copy, and not another pod that has its name by now.
pub(super) async fn delete(cluster: &Cluster, name: &str, copy: &Value) -> Result<(), CommandError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = DeleteParams { grace_period_seconds: Some(GRACE), ..this_one(copy) };
    cluster.ask(&format!("pod/{name} cannot be deleted"), pods.delete(name, &params)).await.map(drop)
}

/// The pod as it would be made anew, under another name: without labels and owners, without what the server and the
/// scheduler filled in, and with an agent.
fn copy(original: &Value, name: &str, agent: &Agent) -> Value {
    let mut spec = original["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        for field in
            ["nodeName", "ephemeralContainers", "hostname", "subdomain", "priority", "preemptionPolicy"]
        {
            spec.remove(field);
        }
        // A copy of a Job's pod would end and stay; this one is to be worked in.
        spec.insert("restartPolicy".to_owned(), json!("Always"));
        drop_token_volume(spec);
    }
    if agent_in(&spec).is_none() {
        spec["shareProcessNamespace"] = json!(true);
        push(&mut spec, "containers", agent.container());
        let volume = devsync_protocol::contract::VOLUME;
        if !spec["volumes"].as_array().into_iter().flatten().any(|v| v["name"] == volume) {
            push(&mut spec, "volumes", agent::volume());
        }
        if let Some(secret) = &agent.pull_secret {
            push(&mut spec, "imagePullSecrets", json!({"name": secret}));
        }
    }
    let metadata = &original["metadata"];
    let mut marks = metadata["annotations"].as_object().cloned().unwrap_or_default();
    marks.retain(|key, _| ![ATTACHED_BY, ATTACHED_SINCE, MODIFIED_AT].contains(&key.as_str()));
    marks.insert(COPY_OF.to_owned(), metadata["name"].clone());
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": name, "namespace": metadata["namespace"], "annotations": marks},
           "spec": spec})
}

/// The API server mounts a token into each pod by itself; mounted twice it is refused.
fn drop_token_volume(spec: &mut Map<String, Value>) {
    let is_token = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("kube-api-access-"));
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !is_token(&volume["name"]));
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !is_token(&mount["name"]));
            }
        }
    }
}

fn push(spec: &mut Value, list: &str, item: Value) {
    match spec[list].as_array_mut() {
        Some(items) => items.push(item),
        None => spec[list] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_devsync_made_counts_as_a_copy() {
        let pod = |metadata: Value| -> Pod {
            serde_json::from_value(json!({"metadata": metadata})).expect("a pod")
        };
        let mark = json!({COPY_OF: "demo-1"});
        let copy = pod(json!({"annotations": mark}));
        assert!(is_copy(&copy) && copied_from(&copy).is_some_and(|name| name == "demo-1"));
        let owner = json!([{"apiVersion": "v1", "kind": "ReplicaSet", "name": "rs", "uid": "u"}]);
        assert!(!is_copy(&pod(json!({"annotations": mark, "ownerReferences": owner}))));
        assert!(!is_copy(&pod(json!({"annotations": mark, "labels": {"app": "demo"}}))));
        assert!(!is_copy(&pod(json!({}))));
    }

    #[test]
    fn a_volume_that_outlives_the_pod_is_found() {
        let with = |volume: Value| json!({"volumes": [{"name": "a", "emptyDir": {}}, volume]});
        let data = json!({"name": "b", "persistentVolumeClaim": {"claimName": "data-db-0"}});
        assert_eq!(claim(&with(data)), Some("data-db-0"));
        assert_eq!(claim(&with(json!({"name": "b", "configMap": {"name": "c"}}))), None);
    }

    #[test]
    fn a_copy_belongs_to_nobody_and_keeps_its_probes() {
        let original = json!({
            "metadata": {"name": "demo-1", "namespace": "ns", "uid": "u", "labels": {"app": "demo"},
                         "annotations": {"a": "b", ATTACHED_BY: "ann"}, "ownerReferences": [{"name": "rs"}]},
            "spec": {"nodeName": "n", "restartPolicy": "Never",
                     "containers": [{"name": "app", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}},
                                     "volumeMounts": [{"name": "kube-api-access-x1"}, {"name": "data"}]}],
                     "volumes": [{"name": "kube-api-access-x1"}, {"name": "data"}]},
            "status": {"phase": "Running"}});
        let agent = Agent::new(json!({}));
        let copy = copy(&original, "mine", &agent);
        let expected =
            json!({"name": "mine", "namespace": "ns", "annotations": {"a": "b", COPY_OF: "demo-1"}});
        assert_eq!(copy["metadata"], expected);
        assert_eq!(copy.get("status"), None);
        let spec = &copy["spec"];
        assert_eq!(spec.get("nodeName"), None);
        assert_eq!(
            spec["containers"][0]["livenessProbe"],
            original["spec"]["containers"][0]["livenessProbe"]
        );
        assert_eq!(spec["containers"][0]["volumeMounts"], json!([{"name": "data"}]));
        assert_eq!(spec["volumes"], json!([{"name": "data"}, {"name": "devsync", "emptyDir": {}}]));
        assert_eq!(
            (&spec["shareProcessNamespace"], &spec["restartPolicy"]),
            (&json!(true), &json!("Always"))
        );
        assert!(agent_in(spec).is_some());
        serde_json::from_value::<Pod>(copy).expect("of the schema");
    }
}
