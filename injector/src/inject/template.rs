//! Where the pods of an object are described: which kinds have a pod's template, and at which path. Pure.

use devsync_protocol::contract::annotation::PREFIX;
use serde_json::{Map, Value};

use crate::annotations::asked_of;
use crate::outcome::Outcome;

/// What an object is to devsync.
pub(crate) enum Found {
    /// The path to what has a pod's `metadata` and `spec`.
    Template(&'static [&'static str]),
    /// Its `items` are objects.
    List,
    Nothing,
}

pub(crate) fn find(object: &Value) -> Found {
    let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
        return Found::Nothing;
    };
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    match (group, kind) {
        ("", "List") => Found::List,
        ("", "Pod") => Found::Template(&[]),
        ("", "ReplicationController") => Found::Template(&["spec", "template"]),
        ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet") => {
            Found::Template(&["spec", "template"])
        }
        ("apps", "StatefulSet") => Found::Template(&["spec", "template"]),
        ("batch", "Job") => Found::Template(&["spec", "template"]),
        ("batch", "CronJob") => Found::Template(&["spec", "jobTemplate", "spec", "template"]),
        _ => Found::Nothing,
    }
}

/// The object at a path of fields; `None` too where it is none.
pub(crate) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, field| value.get(field)).filter(|found| found.is_object())
}

/// The object with another value at a path.
pub(crate) fn with(object: &Value, path: &[&str], changed: Value) -> Value {
    let mut object = object.clone();
    match path.iter().try_fold(&mut object, |value, field| value.get_mut(field)) {
        Some(place) => *place = changed,
        None => return object,
    }
    object
}

/// The outcome of all items of a list, as that of the list.
pub(crate) fn each(list: &Value, change: impl Fn(&Value) -> Outcome) -> Outcome {
    let Some(items) = list["items"].as_array() else { return Outcome::default() };
    let (mut all, mut changed, mut is_changed) = (Outcome::default(), Vec::new(), false);
    for item in items {
        // A list in a list is nothing that the API has; without this its depth would be the stack's.
        let outcome = match find(item) {
            Found::List => Outcome::default(),
            _ => change(item),
        };
        is_changed |= outcome.object.is_some();
        changed.push(outcome.object.unwrap_or_else(|| item.clone()));
        all.did.extend(outcome.did);
        all.warnings.extend(outcome.warnings);
    }
    if is_changed {
        all.object = Some(with(list, &["items"], Value::Array(changed)));
    }
    all
}

/// The object's name as kubectl writes it; of a pod that has none yet, what its name will begin with.
pub(crate) fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("object").to_lowercase();
    let metadata = &object["metadata"];
    match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => format!("{kind}/{name}"),
        (None, Some(start)) => format!("{kind}/{start}*"),
        (None, None) => format!("{kind} without a name"),
    }
}

/// What the object around the template tells of a misunderstanding.
pub(crate) fn hints(object: &Value, path: &[&str]) -> Option<String> {
    if path.is_empty() {
        let is_live = object["metadata"]["uid"].is_string() && object["status"].is_object();
        let text = "it runs already, and a pod's containers cannot be changed: kubectl replace --force -f FILE makes it anew";
        return is_live.then(|| text.to_owned());
    }
    let inner = at(object, path).map(|template| template["metadata"].clone()).unwrap_or_default();
    let inner = asked_of(&inner).into_iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let outer = asked_of(&object["metadata"]).into_iter().map(|(name, _)| name);
    let names: Vec<_> = outer.filter(|name| !inner.iter().any(|known| known == name)).collect();
    (!names.is_empty()).then(|| {
        let names: Vec<_> = names.iter().map(|name| name.trim_start_matches(PREFIX)).collect();
        format!(
            "annotation {PREFIX}{} belongs into {}.metadata.annotations: only the pods' own count",
            names.join(", "),
            path.join(".")
        )
    })
}

/// A map's field as a list, for reading.
pub(crate) fn list<'a>(fields: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    fields.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
