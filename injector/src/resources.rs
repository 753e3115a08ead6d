//! Requests and limits of the agent's container: read, merged with the defaults, and refused where the API would refuse
//! them, since a pod that is refused is worse than one with the defaults.

use serde_json::{Map, Value, json};

/// What may be stated. Devices and huge pages are nothing for an agent.
const NAMES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Below this the agent is killed for want of memory before it serves.
const LEAST_MEMORY: f64 = 32.0 * 1024.0 * 1024.0;

/// `base` with what `stated` says: a quantity replaces, null removes. The error completes "that is …".
pub(crate) fn merged(base: &Value, stated: &Value) -> Result<Value, String> {
    let groups = stated.as_object().ok_or("no JSON object of requests and limits")?;
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (group, quantities) in groups {
        if !["requests", "limits"].contains(&group.as_str()) {
            return Err(format!("not understood: {group:?} is none of requests, limits"));
        }
        let quantities = quantities.as_object().ok_or(format!("not understood: {group} is no object"))?;
        let into = result.entry(group.as_str()).or_insert_with(|| json!({}));
        let Some(into) = into.as_object_mut() else { return Err(format!("not understood: {group}")) };
        for (name, quantity) in quantities {
            merge(into, name, quantity)?;
        }
    }
    check(&mut result, stated)?;
    Ok(Value::Object(result))
}

fn merge(into: &mut Map<String, Value>, name: &str, quantity: &Value) -> Result<(), String> {
    if !NAMES.contains(&name) {
        return Err(format!("not understood: {name:?} is none of {}", NAMES.join(", ")));
    }
    if quantity.is_null() {
        into.shift_remove(name);
        return Ok(());
    }
    let text = quantity.as_str().map(str::to_owned).unwrap_or_else(|| quantity.to_string());
    if amount(&text).is_none() {
        return Err(format!("not understood: {name} {quantity} is no quantity, as 64Mi or 100m"));
    }
    into.insert(name.to_owned(), Value::String(text));
    Ok(())
}

/// The API refuses a request above its limit: a default one comes down to a stated limit.
fn check(resources: &mut Map<String, Value>, stated: &Value) -> Result<(), String> {
    for name in NAMES {
        let at = |resources: &Map<String, Value>, group: &str| {
            resources.get(group).and_then(|quantities| quantities[name].as_str()).and_then(amount)
        };
        let (request, limit) = (at(resources, "requests"), at(resources, "limits"));
        if name == "memory" && limit.is_some_and(|limit| limit < LEAST_MEMORY) {
            return Err("too little: the agent needs a memory limit of 32Mi or more".to_owned());
        }
        let (Some(request), Some(limit)) = (request, limit) else { continue };
        if request <= limit {
            continue;
        }
        let (lower, higher) = match stated["requests"].get(name) {
            Some(_) if stated["limits"].get(name).is_some() => {
                return Err(format!("not possible: more {name} requested than its limit"));
            }
            Some(_) => ("limits", "requests"),
            None => ("requests", "limits"),
        };
        let value = resources.get(higher).map(|quantities| quantities[name].clone()).unwrap_or_default();
        if let Some(quantities) = resources.get_mut(lower).and_then(Value::as_object_mut) {
            quantities.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// A Kubernetes quantity as a number; `None` for what is none, and for less than nothing.
fn amount(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let suffix = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix));
    let (digits, factor) =
        suffix.map_or((text, 1.0), |(suffix, factor)| (&text[..text.len() - suffix.len()], *factor));
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let value: f64 = digits.parse().ok().filter(|_| plain)?;
    (value * factor).is_finite().then_some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::resources;

    fn with(stated: Value) -> Result<Value, String> {
        merged(&resources(), &stated)
    }

    #[test]
    fn what_is_stated_replaces_the_defaults_and_nothing_else() {
        let merged =
            with(json!({"limits": {"cpu": null, "memory": "1Gi"}, "requests": {"cpu": 1}})).expect("fine");
        assert_eq!(merged, json!({"requests": {"cpu": "1", "memory": "16Mi"}, "limits": {"memory": "1Gi"}}));
    }

    #[test]
    fn a_default_gives_way_to_what_is_stated() {
        assert_eq!(with(json!({"limits": {"cpu": "5m"}})).expect("fine")["requests"]["cpu"], "5m");
        assert_eq!(with(json!({"requests": {"cpu": "3"}})).expect("fine")["limits"]["cpu"], "3");
        let both = json!({"requests": {"cpu": "3"}, "limits": {"cpu": "1"}});
        assert!(with(both).expect_err("refused").contains("more cpu requested"));
    }

    #[test]
    fn what_the_api_would_refuse_is_refused_here() {
        for wrong in [
            json!([]),
            json!({"claims": []}),
            json!({"limits": []}),
            json!({"limits": {"nvidia.com/gpu": 1}}),
            json!({"limits": {"memory": "much"}}),
            json!({"limits": {"memory": "-1"}}),
            json!({"limits": {"memory": "64MiB"}}),
            json!({"limits": {"memory": "16Mi"}}),
            json!({"limits": {"cpu": true}}),
            json!({"limits": {"cpu": "1e400"}}),
        ] {
            assert!(with(wrong.clone()).is_err(), "{wrong}");
        }
        assert_eq!(amount("1.5Gi"), Some(1_610_612_736.0));
        assert_eq!(
            (amount("100m"), amount("Mi"), amount("inf"), amount("NaN")),
            (Some(0.1), None, None, None)
        );
    }
}
