//! A JSON Patch (RFC 6902) from one object to another: small, and by adding to lists rather than replacing them.

use serde_json::{Map, Value, json};

/// The operations that make `after` of `before`.
pub(super) fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    value(&mut String::new(), before, after, &mut operations);
    operations
}

fn value(path: &mut String, before: &Value, after: &Value, operations: &mut Vec<Value>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => object(path, before, after, operations),
        (Value::Array(before), Value::Array(after)) => array(path, before, after, operations),
        _ => operations.push(json!({"op": "replace", "path": path, "value": after})),
    }
}

fn object(
    path: &mut String,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    operations: &mut Vec<Value>,
) {
    for (key, old) in before {
        at(path, key, |path| match after.get(key) {
            Some(new) => value(path, old, new, operations),
            None => operations.push(json!({"op": "remove", "path": path})),
        });
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        at(path, key, |path| operations.push(json!({"op": "add", "path": path, "value": new})));
    }
}

/// What is the same at both ends stays; between, elements are changed one by one, added, or taken out.
fn array(path: &mut String, before: &[Value], after: &[Value], operations: &mut Vec<Value>) {
    let shorter = before.len().min(after.len());
    let head = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let tail = before.iter().rev().zip(after.iter().rev()).take(shorter - head);
    let tail = tail.take_while(|(old, new)| old == new).count();
    let (old, new) = (&before[head..before.len() - tail], &after[head..after.len() - tail]);
    let common = old.len().min(new.len());
    for index in 0..common {
        at(path, &(head + index).to_string(), |path| value(path, &old[index], &new[index], operations));
    }
    // From behind, so that indices hold.
    for index in (common..old.len()).rev() {
        operations.push(json!({"op": "remove", "path": format!("{path}/{}", head + index)}));
    }
    for (index, element) in new.iter().enumerate().skip(common) {
        operations.push(json!({"op": "add", "path": format!("{path}/{}", head + index), "value": element}));
    }
}

fn at(path: &mut String, key: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&key.replace('~', "~0").replace('/', "~1"));
    then(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies a patch as RFC 6902 says; the API server has an implementation of its own.
    fn apply(document: &Value, patch: &[Value]) -> Option<Value> {
        let mut document = document.clone();
        for operation in patch {
            let path = operation["path"].as_str()?;
            if path.is_empty() {
                document = operation["value"].clone();
                continue;
            }
            let (parent, key) = path.rsplit_once('/')?;
            let key = key.replace("~1", "/").replace("~0", "~");
            let new = || operation["value"].clone();
            match (document.pointer_mut(parent)?, operation["op"].as_str()?) {
                (Value::Object(map), "remove") => drop(map.shift_remove(&key)?),
                (Value::Object(map), "add") => drop(map.insert(key, new())),
                (Value::Object(map), _) => *map.get_mut(&key)? = new(),
                (Value::Array(list), "add") => list.insert(key.parse().ok()?, new()),
                (Value::Array(list), "remove") => drop(list.remove(key.parse().ok()?)),
                (Value::Array(list), _) => *list.get_mut(key.parse::<usize>().ok()?)? = new(),
                _ => return None,
            }
        }
        Some(document)
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            "[a~/]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a~/]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_makes_the_one_of_the_other(before in document(), after in document()) {
            let patch = diff(&before, &after);
            prop_assert_eq!(apply(&before, &patch), Some(after), "{:?}", patch);
        }
    }

    #[test]
    fn lists_are_added_to() {
        let before = json!({"c": [{"n": "a"}, {"n": "b"}]});
        let after = json!({"c": [{"n": "x"}, {"n": "a"}, {"n": "b"}], "d": []});
        assert_eq!(
            Value::from(diff(&before, &after)),
            json!([{"op": "add", "path": "/c/0", "value": {"n": "x"}}, {"op": "add", "path": "/d", "value": []}])
        );
        assert!(diff(&after, &after).is_empty());
    }
}
