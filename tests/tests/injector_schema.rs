//! The injector's golden outputs against the published schema of the newest Kubernetes that the libraries know: what a
//! type does not know is lost on the way through it, and of devsync's own nothing may be.

#[path = "../../injector/tests/golden/cases.rs"]
#[allow(unreachable_pub, dead_code)]
mod cases;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::Value;

fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    let typed: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"));
    serde_json::to_value(typed).expect("is JSON")
}

fn typed(object: &Value) -> Value {
    match object["kind"].as_str() {
        Some("Pod") => through::<Pod>(object),
        Some("Deployment") => through::<Deployment>(object),
        Some("StatefulSet") => through::<StatefulSet>(object),
        Some("DaemonSet") => through::<DaemonSet>(object),
        Some("ReplicaSet") => through::<ReplicaSet>(object),
        Some("ReplicationController") => through::<ReplicationController>(object),
        Some("Job") => through::<Job>(object),
        // The older version's fields are the same; the type insists on its own.
        Some("CronJob") => {
            let mut object = object.clone();
            object["apiVersion"] = Value::from("batch/v1");
            through::<CronJob>(&object)
        }
        other => panic!("no type for {other:?}"),
    }
}

/// The paths of what `value` has and `other` has not, or has another value for; items of lists by their names.
fn lost(path: &str, value: &Value, other: &Value, found: &mut BTreeSet<String>) {
    match (value, other) {
        (Value::Object(fields), _) if other.is_object() => {
            fields
                .iter()
                .for_each(|(name, field)| lost(&format!("{path}/{name}"), field, &other[name], found));
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                let name = item["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                lost(&format!("{path}/{name}"), item, other, found);
            }
        }
        _ if value != other => drop(found.insert(path.to_owned())),
        _ => {}
    }
}

fn losses(object: &Value) -> BTreeSet<String> {
    if let Some(items) = object["items"].as_array() {
        let pods = items.iter().filter(|item| item["kind"] != "Service");
        return pods.flat_map(losses).collect();
    }
    let mut found = BTreeSet::new();
    lost("", object, &typed(object), &mut found);
    found.remove("/apiVersion");
    found
}

#[test]
fn every_field_of_devsyncs_is_one_of_the_published_schema() {
    for case in cases::all() {
        // Unknown fields of the input are lost from both.
        let before = losses(&case.input);
        let after: Vec<_> =
            losses(&case.output()).into_iter().filter(|path| !before.contains(path)).collect();
        assert_eq!(after, Vec::<String>::new(), "{}", case.name);
    }
}
