//! Where the pods of an object are described: which kinds have a pod's template, and at which path. Pure.

use serde_json::Value;

/// The path to what has a pod's `metadata` and `spec`; `None` for every kind that devsync has nothing to do with.
pub(crate) fn path(object: &Value) -> Option<&'static [&'static str]> {
    let version = object["apiVersion"].as_str()?;
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    match (group, object["kind"].as_str()?) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController") => Some(&["spec", "template"]),
        ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet") => Some(&["spec", "template"]),
        ("apps", "StatefulSet") => Some(&["spec", "template"]),
        ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// The value at a path of fields.
pub(crate) fn at<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, field| value.get_mut(field))
}
