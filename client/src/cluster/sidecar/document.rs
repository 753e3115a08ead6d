//! What devsync applies to a workload: exactly the fields that it owns there, and nothing else. Pure.

use devsync_injector::agent::{Agent, volume};
use serde_json::{Value, json};

/// The document for server-side apply on `workload`.
pub(in crate::cluster) fn document(agent: &Agent, workload: &Value) -> Value {
    let mut spec = json!({
        "shareProcessNamespace": true,
        "containers": [agent.container()],
        "volumes": [volume()],
    });
    if let Some(secret) = &agent.pull_secret {
        spec["imagePullSecrets"] = json!([{"name": secret}]);
    }
    let mut document = empty_document(workload);
    document["spec"] = json!({"template": {"spec": spec}});
    document
}

/// The document that gives up every field again.
pub(in crate::cluster) fn empty_document(workload: &Value) -> Value {
    let metadata = &workload["metadata"];
    json!({
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
    use serde::de::DeserializeOwned;

    use super::*;
    use devsync_injector::agent::agent_in;
    use devsync_injector::security::{Level, fit};

    fn agent() -> Agent {
        let context = fit(&json!({}), &json!({}), Level::Baseline).context;
        Agent { image: "agent:1".into(), pull_secret: Some("mirror".into()), ..Agent::new(context) }
    }

    /// What the schema's types do not know is lost on the way through them.
    fn round<T: DeserializeOwned + serde::Serialize>(value: &Value) -> Value {
        let typed: T = serde_json::from_value(value.clone()).expect("is of the schema");
        serde_json::to_value(typed).expect("is JSON")
    }

    fn workload(kind: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "demo", "namespace": "ns", "uid": "x"},
               "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "app", "image": "a"}]}}}})
    }

    #[test]
    fn every_field_is_one_of_the_published_schema() {
        let document = super::document(&agent(), &workload("Deployment"));
        // The required selector and labels are no fields of devsync's, so that the types add an empty one.
        let pod = &document["spec"]["template"]["spec"];
        assert_eq!(round::<Deployment>(&document)["spec"]["template"]["spec"], *pod);
        let document = super::document(&agent(), &workload("StatefulSet"));
        assert_eq!(round::<StatefulSet>(&document)["spec"]["template"]["spec"], *pod);
        let document = super::document(&agent(), &workload("DaemonSet"));
        assert_eq!(round::<DaemonSet>(&document)["spec"]["template"]["spec"], *pod);
    }

    #[test]
    fn only_devsyncs_own_fields_are_applied() {
        let document = super::document(&agent(), &workload("Deployment"));
        let keys = |v: &Value| {
            let mut keys: Vec<String> = v.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&document), ["apiVersion", "kind", "metadata", "spec"]);
        assert_eq!(keys(&document["metadata"]), ["name", "namespace"]);
        assert_eq!(keys(&document["spec"]), ["template"]);
        let pod = &document["spec"]["template"]["spec"];
        assert_eq!(keys(pod), ["containers", "imagePullSecrets", "shareProcessNamespace", "volumes"]);
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
        assert!(agent_in(pod).is_some_and(|c| c.get("ports").is_none() && c["args"] == json!(["serve"])));
        assert_eq!(keys(&empty_document(&document)), ["apiVersion", "kind", "metadata"]);
    }
}
