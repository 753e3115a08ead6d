//! Who owns which field of an object: `metadata.managedFields`, as server-side apply keeps it.
//! Pure; the format is the one of structured-merge-diff's `fieldpath` (FieldsV1).

use serde_json::{Map, Value};

/// The sets of fields that `manager` applied; one for each API version that it applied with.
pub(super) fn applied_by<'a>(object: &'a Value, manager: &'a str) -> impl Iterator<Item = &'a Value> {
    entries(object)
        .filter(move |e| e["manager"] == manager && e["operation"] == "Apply")
        .map(|entry| &entry["fieldsV1"])
}

/// True where `manager` applied the workload itself, as a manifest, and not only fields of its own in it: giving up its
/// fields, or applying others, would then take the app's.
pub(super) fn is_manifest_of(object: &Value, manager: &str) -> bool {
    applied_by(object, manager).any(|fields| fields["f:spec"].get("f:selector").is_some())
}

/// True where `manager` owns a field, however it got it.
pub(super) fn has_manager(object: &Value, manager: &str) -> bool {
    entries(object).any(|entry| entry["manager"] == manager)
}

/// The managers other than `manager` that own the field at `path` (keys as FieldsV1 writes them) or one below it.
pub(super) fn others_at(object: &Value, manager: &str, path: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = entries(object)
        .filter(|e| e["manager"] != manager)
        .filter(|entry| path.iter().try_fold(&entry["fieldsV1"], |at, key| at.get(*key)).is_some())
        .filter_map(|entry| Some(entry["manager"].as_str()?.to_owned()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The object without the fields that `manager` applied and nobody else owns: what is left when it applies an empty
/// document. Empty lists and maps that remain are taken out too, as the server's types leave them out.
pub(super) fn without(object: &Value, manager: &str) -> Value {
    let mut left = object.clone();
    let others: Vec<&Value> = entries(object)
        .filter(|e| !(e["manager"] == manager && e["operation"] == "Apply"))
        .map(|entry| &entry["fieldsV1"])
        .collect();
    for ours in applied_by(object, manager) {
        take_out(&mut left, ours, &others);
    }
    left
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten()
}

/// Removes from `node` what `ours` names and none of `others` does.
fn take_out(node: &mut Value, ours: &Value, others: &[&Value]) {
    let Some(ours) = ours.as_object() else { return };
    for (key, below) in ours {
        let theirs: Vec<&Value> = others.iter().filter_map(|o| o.get(key)).collect();
        if let Some(name) = key.strip_prefix("f:") {
            let Some(fields) = node.as_object_mut() else { continue };
            let Some(child) = fields.get_mut(name) else { continue };
            match theirs.is_empty() && owns_whole(below) {
                true => drop(fields.remove(name)),
                false => {
                    take_out(child, below, &theirs);
                    if is_empty(child) && theirs.is_empty() {
                        fields.remove(name);
                    }
                }
            }
        } else if let Some(id) = key.strip_prefix("k:") {
            let (Some(items), Ok(id)) = (node.as_array_mut(), serde_json::from_str::<Map<_, _>>(id)) else {
                continue;
            };
            let is_it = |item: &Value| id.iter().all(|(field, value)| item.get(field) == Some(value));
            match theirs.is_empty() && owns_whole(below) {
                true => items.retain(|item| !is_it(item)),
                false => items.iter_mut().filter(|i| is_it(i)).for_each(|i| take_out(i, below, &theirs)),
            }
        } else if let (Some(items), Some(value), true) =
            (node.as_array_mut(), key.strip_prefix("v:"), theirs.is_empty())
        {
            let value: Value = serde_json::from_str(value).unwrap_or_default();
            items.retain(|item| *item != value);
        }
    }
}

/// A leaf, or an entry whose own existence is owned (`.`): it goes with all that lies below it.
fn owns_whole(below: &Value) -> bool {
    below.as_object().is_none_or(|fields| fields.is_empty() || fields.contains_key("."))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_that_was_applied_whole_is_told_from_devsync_s_own_fields() {
        assert!(!is_manifest_of(&object(), "devsync"));
        let mut whole = object();
        whole["metadata"]["managedFields"][2]["fieldsV1"]["f:spec"]["f:selector"] = json!({});
        assert!(is_manifest_of(&whole, "devsync") && !is_manifest_of(&whole, "kubectl"));
    }

    fn object() -> Value {
        json!({
            "metadata": {"name": "demo", "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {
                    "f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                        "k:{\"name\":\"app\"}": {".": {}, "f:name": {}, "f:image": {}}}}}}}},
                {"manager": "hpa", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "devsync", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"agent\"}": {".": {}, "f:name": {}, "f:image": {}}},
                    "f:shareProcessNamespace": {},
                    "f:volumes": {"k:{\"name\":\"devsync\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}}}}}}},
            ]},
            "spec": {"replicas": 3, "template": {"spec": {
                "containers": [{"name": "app", "image": "a"}, {"name": "agent", "image": "b", "stdin": false}],
                "shareProcessNamespace": true,
                "volumes": [{"name": "devsync", "emptyDir": {}}]}}},
        })
    }

    #[test]
    fn exactly_the_managers_own_fields_go() {
        let left = without(&object(), "devsync");
        let expected =
            json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "app", "image": "a"}]}}});
        assert_eq!(left["spec"], expected);
        assert_eq!(without(&object(), "somebody")["spec"], object()["spec"]);
    }

    #[test]
    fn what_another_manager_also_owns_stays() {
        let mut shared = object();
        let others = json!({"manager": "argocd", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template":
            {"f:spec": {"f:shareProcessNamespace": {}, "f:containers": {"k:{\"name\":\"agent\"}": {"f:image": {}}}}}}}});
        shared["metadata"]["managedFields"].as_array_mut().expect("a list").push(others);
        let left = without(&shared, "devsync");
        let spec = &left["spec"]["template"]["spec"];
        assert_eq!(spec["shareProcessNamespace"], true);
        assert_eq!(spec["containers"][1]["image"], "b");
        assert!(spec.get("volumes").is_none());
        let path = ["f:spec", "f:template", "f:spec", "f:containers", "k:{\"name\":\"agent\"}"];
        assert_eq!(others_at(&shared, "devsync", &path), ["argocd"]);
        assert!(others_at(&object(), "devsync", &path).is_empty());
    }

    #[test]
    fn an_update_under_our_name_is_not_an_apply() {
        assert!(has_manager(&object(), "hpa"));
        assert_eq!(applied_by(&object(), "hpa").count(), 0);
        assert_eq!(applied_by(&object(), "devsync").count(), 1);
        assert_eq!(applied_by(&json!({}), "devsync").count(), 0);
    }
}
