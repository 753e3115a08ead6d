//! What an injection replaced, as it lies in the pod's annotation, and how it is put back: by name and not by position,
//! so that it also works on an object that the server completed or somebody else changed since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::security::Level;

/// A field before it was replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Was {
    was: Value,
    /// Its place among its neighbours.
    at: usize,
}

/// Fields of one object that were changed; null for one that was not there.
pub(crate) type Fields = BTreeMap<String, Option<Was>>;

/// What inject changes in a pod's spec and in a container.
const IN_SPEC: [&str; 4] = ["shareProcessNamespace", "volumes", "initContainers", "imagePullSecrets"];
const IN_CONTAINER: [&str; 7] =
    ["command", "args", "image", "volumeMounts", "livenessProbe", "startupProbe", "readinessProbe"];

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Original {
    /// For which Pod Security level this was made.
    pub level: String,
    /// Tells one set of devsync's annotations from another.
    pub asked: String,
    /// The registry's Secret, where it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub template: Fields,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: Fields,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub spec: Fields,
    /// By the container's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, Fields>,
}

impl Original {
    pub(crate) fn new(level: Level, asked: String) -> Self {
        Self { level: level.name().to_owned(), asked, ..Self::default() }
    }

    /// Reads a record; none where it is not one that inject could have written, since it says what to remove.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let record: Self = serde_json::from_str(text).ok()?;
        let only =
            |fields: &Fields, known: &[&str]| fields.keys().all(|field| known.contains(&field.as_str()));
        let is_ours = only(&record.template, &["metadata"])
            && only(&record.metadata, &["annotations"])
            && only(&record.spec, &IN_SPEC)
            && record.containers.values().all(|fields| only(fields, &IN_CONTAINER));
        is_ours.then_some(record)
    }
}

/// Fields that others put things into as well: these are taken out by name, and the field goes only when it is empty.
const SHARED: [&str; 6] =
    ["metadata", "annotations", "volumes", "initContainers", "imagePullSecrets", "volumeMounts"];

/// Notes a field's state, once: a second change of it is not the original's.
fn note(fields: &mut Fields, object: &Map<String, Value>, field: &str) {
    if fields.contains_key(field) {
        return;
    }
    let was = object.get(field).map(|was| Was { was: was.clone(), at: place(fields, object, field) });
    fields.insert(field.to_owned(), was);
}

/// A field's place among the original's fields: those that were removed before count too.
fn place(fields: &Fields, object: &Map<String, Value>, field: &str) -> usize {
    let mut at = object.keys().take_while(|key| *key != field).count();
    let gone = fields.iter().filter(|(name, _)| !object.contains_key(name.as_str()));
    let mut gone: Vec<usize> = gone.filter_map(|(_, was)| Some(was.as_ref()?.at)).collect();
    gone.sort_unstable();
    for earlier in gone {
        if earlier <= at {
            at += 1;
        }
    }
    at
}

/// Sets a field, and notes what it was.
pub(crate) fn set(fields: &mut Fields, object: &mut Map<String, Value>, field: &str, value: Value) {
    note(fields, object, field);
    object.insert(field.to_owned(), value);
}

/// Removes a field, if it is there, and notes what it was.
pub(crate) fn remove(fields: &mut Fields, object: &mut Map<String, Value>, field: &str) -> bool {
    if !object.contains_key(field) {
        return false;
    }
    note(fields, object, field);
    object.shift_remove(field);
    true
}

/// The list or object that a field holds; an empty one is made, and noted, where there is none. A field that holds
/// something else was refused before this.
pub(crate) fn entry<'a>(
    fields: &mut Fields,
    object: &'a mut Map<String, Value>,
    field: &str,
    empty: Value,
) -> &'a mut Value {
    if object.get(field).is_none_or(Value::is_null) {
        note(fields, object, field);
        if field == "metadata" && !object.contains_key(field) {
            // People read it first.
            object.shift_insert(0, field.to_owned(), Value::Null);
        }
        object.insert(field.to_owned(), empty);
    }
    object.entry(field).or_insert(Value::Null)
}

/// Puts fields back. A list or map that was made for what is gone again goes too, unless others use it by now.
pub(crate) fn restore(fields: &Fields, object: &mut Map<String, Value>) {
    let is_kept = |object: &Map<String, Value>, field: &String| {
        SHARED.contains(&field.as_str()) && object.get(field).is_some_and(is_used)
    };
    for field in fields.iter().filter(|(_, was)| was.is_none()).map(|(field, _)| field) {
        if !is_kept(object, field) {
            object.shift_remove(field);
        }
    }
    let mut back: Vec<_> = fields.iter().filter_map(|(field, was)| Some((field, was.as_ref()?))).collect();
    back.sort_by_key(|(_, was)| was.at);
    for (field, Was { was, at }) in back {
        if object.contains_key(field) {
            if !is_kept(object, field) {
                object.insert(field.clone(), was.clone());
            }
        } else {
            object.shift_insert((*at).min(object.len()), field.clone(), was.clone());
        }
    }
}

fn is_used(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn everything_returns_to_its_place() {
        let original = map(json!({"a": 1, "b": null, "volumes": null, "c": [1], "d": 4, "e": 5}));
        for order in [["a", "c", "d"], ["d", "c", "a"], ["c", "a", "d"]] {
            let (mut fields, mut object) = (Fields::new(), original.clone());
            order.iter().for_each(|field| assert!(remove(&mut fields, &mut object, field)));
            set(&mut fields, &mut object, "b", json!(2));
            set(&mut fields, &mut object, "new", json!([1]));
            entry(&mut fields, &mut object, "volumes", json!([]));
            entry(&mut fields, &mut object, "metadata", json!({}));
            assert_eq!(object.keys().next().map(String::as_str), Some("metadata"));
            let text = serde_json::to_string(&fields).expect("is JSON");
            let fields: Fields = serde_json::from_str(&text).expect("is a record");
            restore(&fields, &mut object);
            assert_eq!(Value::Object(object).to_string(), Value::Object(original.clone()).to_string());
        }
    }

    #[test]
    fn a_list_that_others_use_by_now_stays() {
        let (mut fields, mut object) = (Fields::new(), Map::new());
        entry(&mut fields, &mut object, "volumes", json!([]))
            .as_array_mut()
            .expect("a list")
            .push(json!("theirs"));
        restore(&fields, &mut object);
        assert_eq!(Value::Object(object), json!({"volumes": ["theirs"]}));
    }
}
