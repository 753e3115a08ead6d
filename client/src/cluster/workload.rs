//! The object whose template makes a target's pods, read and applied as it is: fields that this release does not know
//! are kept.

use std::fmt;

use devsync_protocol::contract::FIELD_MANAGER;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;
use tokio::time::timeout;

use super::obstacles::{WAYS_OUT, cluster as failure, word};
use super::{ANSWER_WITHIN, Cluster, WorkloadRef};
use crate::cli::WorkloadKind;
use crate::error::CommandError;

/// Pods that a selector may match, for one answer.
const MOST_PODS: u32 = 500;
/// References from a pod to what controls it, and so on: pod, ReplicaSet, Deployment.
const MOST_STEPS: usize = 4;

/// A Deployment, StatefulSet or DaemonSet.
#[derive(Clone)]
pub(super) struct Workload {
    pub kind: WorkloadKind,
    pub name: String,
    api: Api<DynamicObject>,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What a target's pods are made by.
pub(super) enum Maker {
    Workload {
        workload: Box<Workload>,
        object: Value,
    },
    /// Nothing whose template could be changed to get other pods; why.
    Fixed {
        what: String,
        why: String,
    },
}

impl Workload {
    fn new(cluster: &Cluster, kind: WorkloadKind, name: &str) -> Self {
        Self { kind, name: name.to_owned(), api: api(cluster, kind) }
    }

    /// Reads the object as it is now.
    pub(super) async fn read(&self, cluster: &Cluster) -> Result<Value, CommandError> {
        let object = cluster.ask(&format!("{self} cannot be read"), self.api.get(&self.name)).await?;
        Ok(value(&object))
    }

    /// Server-side apply as [`FIELD_MANAGER`], never forced; answers with the object as it is then.
    pub(super) async fn apply(&self, document: &Value, dry_run: bool) -> Result<Value, kube::Error> {
        let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER) };
        match timeout(ANSWER_WITHIN, self.api.patch(&self.name, &params, &Patch::Apply(document))).await {
            Ok(applied) => Ok(value(&applied?)),
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }
}

/// Objects of a kind in the cluster's namespace.
pub(super) fn api(cluster: &Cluster, kind: WorkloadKind) -> Api<DynamicObject> {
    let resource = match kind {
        WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
        WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        WorkloadKind::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
        WorkloadKind::Job => ApiResource::erase::<Job>(&()),
        WorkloadKind::Pod => ApiResource::erase::<Pod>(&()),
        WorkloadKind::Service => ApiResource::erase::<Service>(&()),
    };
    Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)
}

/// The object as JSON; of a type that always is.
pub(super) fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Finds what makes the pods of a target.
pub(super) async fn maker(cluster: &Cluster, target: &WorkloadRef) -> Result<Maker, CommandError> {
    let (mut kind, mut name) = match target {
        WorkloadRef::Named { kind: WorkloadKind::Service, name } => {
            let doing = format!("svc/{name} cannot be read");
            let service = cluster.ask(&doing, api(cluster, WorkloadKind::Service).get(name)).await?;
            let labels = selector(&value(&service)["spec"]["selector"], &Value::Null);
            (WorkloadKind::Pod, a_pod(cluster, &labels, &target.to_string()).await?)
        }
        WorkloadRef::Named { kind, name } => (*kind, name.clone()),
        WorkloadRef::Selector(labels) => {
            (WorkloadKind::Pod, a_pod(cluster, labels, &target.to_string()).await?)
        }
    };
    for _ in 0..MOST_STEPS {
        let what = format!("{kind}/{name}");
        if matches!(kind, WorkloadKind::Deployment | WorkloadKind::StatefulSet | WorkloadKind::DaemonSet) {
            let workload = Workload::new(cluster, kind, &name);
            let object = workload.read(cluster).await?;
            return Ok(Maker::Workload { workload: Box::new(workload), object });
        }
        let object = cluster.ask(&format!("{what} cannot be read"), api(cluster, kind).get(&name)).await?;
        match controller(&value(&object)) {
            Some(Controller::Known(next, next_name)) => (kind, name) = (next, next_name),
            Some(Controller::Unknown(owner)) => {
                let why = format!("{owner} makes it, of a kind that devsync does not know");
                return Ok(Maker::Fixed { what, why });
            }
            None => {
                let why = match kind {
                    WorkloadKind::Pod => {
                        "a pod's containers cannot be changed, and nothing would make a new one"
                    }
                    WorkloadKind::Job => "a Job's template cannot be changed",
                    _ => "its pods are not replaced when its template changes",
                };
                return Ok(Maker::Fixed { what, why: why.to_owned() });
            }
        }
    }
    Err(failure(format!("what makes the pods of {target} cannot be found")))
}

impl Maker {
    /// The workload, or the reason why there is none that can be changed.
    pub(super) fn changeable(self) -> Result<(Workload, Value), CommandError> {
        match self {
            Self::Workload { workload, object } => Ok((*workload, object)),
            Self::Fixed { what, why } => {
                Err(failure(format!("{what} cannot be given a sidecar")).cause(why).hint(WAYS_OUT))
            }
        }
    }
}

enum Controller {
    Known(WorkloadKind, String),
    Unknown(String),
}

fn controller(object: &Value) -> Option<Controller> {
    let references = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let owner = references.into_iter().find(|r| r["controller"] == true)?;
    let (kind, name) = (word(&owner["kind"]), word(&owner["name"]));
    let known = match (word(&owner["apiVersion"]), kind) {
        ("apps/v1", "Deployment") => WorkloadKind::Deployment,
        ("apps/v1", "StatefulSet") => WorkloadKind::StatefulSet,
        ("apps/v1", "DaemonSet") => WorkloadKind::DaemonSet,
        ("apps/v1", "ReplicaSet") => WorkloadKind::ReplicaSet,
        ("batch/v1", "Job") => WorkloadKind::Job,
        // A Job of a CronJob: it cannot be changed either, and is the end of the way.
        ("batch/v1" | "batch/v1beta1", "CronJob") => return None,
        _ => return Some(Controller::Unknown(format!("{kind}/{name}"))),
    };
    Some(Controller::Known(known, name.to_owned()))
}

/// The newest of the pods with these labels.
async fn a_pod(cluster: &Cluster, labels: &str, target: &str) -> Result<String, CommandError> {
    let params = ListParams::default().labels(labels).limit(MOST_PODS);
    let listed = cluster.ask("pods cannot be listed", api(cluster, WorkloadKind::Pod).list(&params)).await?;
    let newest = listed.items.into_iter().max_by(|a, b| {
        let age = |pod: &DynamicObject| pod.metadata.creation_timestamp.clone();
        age(a).cmp(&age(b))
    });
    let name = newest.and_then(|pod| pod.metadata.name);
    name.ok_or_else(|| {
        failure(format!("no pod belongs to {target}"))
            .hint(format!("kubectl get pods {} -l '{labels}'", cluster.flags))
    })
}

/// A label selector as a query has it: `matchLabels` and `matchExpressions`.
pub(super) fn selector(labels: &Value, expressions: &Value) -> String {
    let equal = labels.as_object().into_iter().flatten();
    let mut terms: Vec<String> = equal.map(|(key, value)| format!("{key}={}", word(value))).collect();
    for expression in expressions.as_array().into_iter().flatten() {
        let key = word(&expression["key"]);
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().map(word).collect();
        terms.push(match word(&expression["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_is_written_as_a_query() {
        let labels = json!({"app": "demo", "tier": "web"});
        let expressions = json!([
            {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "Exists"},
            {"key": "c", "operator": "DoesNotExist"}, {"key": "d", "operator": "NotIn", "values": ["z"]}]);
        assert_eq!(selector(&labels, &expressions), "app=demo,tier=web,a in (x,y),b,!c,d notin (z)");
        assert_eq!(selector(&Value::Null, &Value::Null), "");
    }

    #[test]
    fn the_controller_is_the_owner_that_says_so() {
        let owned = |api: &str, kind: &str| {
            json!({"metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n"},
                {"apiVersion": api, "kind": kind, "name": "demo", "controller": true}]}})
        };
        assert!(matches!(controller(&owned("apps/v1", "ReplicaSet")),
                         Some(Controller::Known(WorkloadKind::ReplicaSet, name)) if name == "demo"));
        assert!(matches!(controller(&owned("argoproj.io/v1alpha1", "Rollout")),
                         Some(Controller::Unknown(owner)) if owner == "Rollout/demo"));
        assert!(controller(&owned("batch/v1", "CronJob")).is_none());
        assert!(controller(&json!({"metadata": {}})).is_none());
    }
}
