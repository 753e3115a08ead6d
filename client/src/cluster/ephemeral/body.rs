//! What is asked of pods/ephemeralcontainers, and what a pod has of ours already. Pure.

use devsync_protocol::contract::{AGENT_CONTAINER, IDS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use serde_json::{Value, json};

/// True where the server has the subresource with today's body (1.22 and later; on by default since 1.23). The alpha of
/// 1.16 to 1.21 has the same name and another body, which is told by its kind.
pub(in crate::cluster) fn is_offered(core: &APIResourceList) -> bool {
    core.resources
        .iter()
        .any(|resource| resource.name == "pods/ephemeralcontainers" && resource.kind == "Pod")
}

/// Ephemeral agents of a pod. They are never removed: only a new pod is without them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Ours {
    /// Containers that run.
    pub(in crate::cluster) live: Vec<String>,
    /// How many have ended.
    pub(in crate::cluster) dead: usize,
    /// The name for the next one.
    pub(in crate::cluster) next: String,
}

pub(in crate::cluster) fn ours(pod: &Value) -> Ours {
    let containers = pod["spec"]["ephemeralContainers"].as_array().into_iter().flatten();
    let names = containers.filter_map(|container| container["name"].as_str());
    let names: Vec<&str> = names.filter(|name| name.starts_with(AGENT_CONTAINER)).collect();
    let has_ended = |name: &str| {
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten();
        statuses.into_iter().any(|s| s["name"] == name && s["state"].get("terminated").is_some())
    };
    let (dead, live): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| has_ended(name));
    let number = |name: &&str| name.strip_prefix(AGENT_CONTAINER)?.strip_prefix('-')?.parse::<u32>().ok();
    let last = names.iter().filter_map(number).max().unwrap_or(0);
    Ours {
        live: live.into_iter().map(str::to_owned).collect(),
        dead: dead.len(),
        next: format!("{AGENT_CONTAINER}-{}", last.saturating_add(1)),
    }
}

/// The strategic merge patch that adds one agent for `target`. No resources, probes or ports: the API refuses them
/// here. The agent's own root takes its state, since no volume can be added to a pod.
pub(in crate::cluster) fn patch(
    name: &str,
    image: &str,
    target: &str,
    context: &Value,
    args: &[&str],
) -> Value {
    let mut context = context.clone();
    context["readOnlyRootFilesystem"] = json!(false);
    json!({"spec": {"ephemeralContainers": [{
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "securityContext": context,
        "targetContainerName": target,
    }]}})
}

/// The ids in what `devsync-agent ids` wrote: its container's termination message, or its log.
pub(in crate::cluster) fn told_ids(text: &str) -> Option<(u32, u32)> {
    let mut ids = text.lines().filter_map(|line| line.trim().strip_prefix(IDS)?.strip_prefix(' '));
    let (uid, gid) = ids.next()?.trim().split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// The container as if its spec stated these ids.
pub(in crate::cluster) fn with_ids(container: &Value, (uid, gid): (u32, u32)) -> Value {
    let mut container = container.clone();
    container["securityContext"]["runAsUser"] = json!(uid);
    container["securityContext"]["runAsGroup"] = json!(gid);
    container
}

/// The container with the ids that its process has, where the node tells them (1.31 and later).
pub(in crate::cluster) fn with_observed_ids(container: &Value, pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let mut statuses = statuses.filter(|status| status["name"] == container["name"]);
    let user = statuses.next().map(|status| status["user"]["linux"].clone()).unwrap_or_default();
    let id = |name: &str| user[name].as_u64().and_then(|id| u32::try_from(id).ok());
    id("uid").zip(id("gid")).map_or_else(|| container.clone(), |ids| with_ids(container, ids))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};

    use super::*;
    use devsync_injector::security::{Level, Runs, fit};

    #[test]
    fn only_todays_body_counts_as_offered() {
        let list = |kind: &str| -> APIResourceList {
            let resource = json!({"name": "pods/ephemeralcontainers", "kind": kind, "namespaced": true,
                                  "singularName": "", "verbs": ["get", "patch", "update"]});
            serde_json::from_value(json!({"groupVersion": "v1", "resources": [resource]})).expect("a list")
        };
        assert!(is_offered(&list("Pod")));
        assert!(!is_offered(&list("EphemeralContainers")), "the alpha of 1.16 to 1.21");
        assert!(!is_offered(&APIResourceList::default()));
    }

    /// The types are generated from the published schema, and lose what it does not know.
    #[test]
    fn every_field_is_one_of_the_published_schema() {
        let spec = json!({"securityContext": {"runAsUser": 7, "runAsGroup": 8}});
        let context = fit(&spec, &json!({}), Level::Restricted).context;
        let body = patch("devsync-agent-1", "agent:1", "app", &context, &["serve"]);
        let container = &body["spec"]["ephemeralContainers"][0];
        let typed: EphemeralContainer = serde_json::from_value(container.clone()).expect("of the schema");
        assert_eq!(serde_json::to_value(&typed).expect("JSON"), *container);
        assert_eq!(typed.target_container_name.as_deref(), Some("app"));
        // What the API refuses in an ephemeral container.
        assert!(typed.ports.is_none() && typed.resources.is_none() && typed.liveness_probe.is_none());
        let whole = json!({"spec": {"containers": [], "ephemeralContainers": [container]}});
        let pod: Pod = serde_json::from_value(whole.clone()).expect("of the schema");
        assert_eq!(serde_json::to_value(pod).expect("JSON")["spec"], whole["spec"]);
    }

    #[test]
    fn the_dead_are_counted_and_the_living_found() {
        let pod = json!({
            "spec": {"ephemeralContainers": [
                {"name": "debugger"}, {"name": "devsync-agent-1"}, {"name": "devsync-agent-4"}]},
            "status": {"ephemeralContainerStatuses": [
                {"name": "devsync-agent-1", "state": {"terminated": {"exitCode": 137}}},
                {"name": "devsync-agent-4", "state": {"running": {}}}]}});
        let expected = Ours { live: vec!["devsync-agent-4".into()], dead: 1, next: "devsync-agent-5".into() };
        assert_eq!(ours(&pod), expected);
        assert_eq!(ours(&json!({})), Ours { live: Vec::new(), dead: 0, next: "devsync-agent-1".into() });
    }

    #[test]
    fn what_a_first_container_tells_is_what_the_second_one_gets() {
        assert_eq!(told_ids("ids 1000:2000\n"), Some((1000, 2000)));
        assert_eq!(told_ids("a warning\nids 65532:0"), Some((65532, 0)));
        for no in ["", "ids", "ids 1", "ids -1:2", "ids 1:99999999999", "kids 1:2"] {
            assert_eq!(told_ids(no), None, "{no}");
        }
        let container = with_ids(&json!({"name": "app", "securityContext": {"privileged": false}}), (7, 8));
        let fit = fit(&json!({}), &container, Level::Restricted);
        assert_eq!(fit.runs, Runs::App { uid: 7, gid: 8 });
        assert_eq!((&fit.context["runAsUser"], &fit.context["runAsGroup"]), (&json!(7), &json!(8)));
    }

    #[test]
    fn ids_that_the_node_tells_are_as_good_as_stated_ones() {
        let pod = json!({"status": {"containerStatuses": [
            {"name": "app", "user": {"linux": {"uid": 65532, "gid": 65532}}}]}});
        let container = with_observed_ids(&json!({"name": "app"}), &pod);
        let runs = fit(&json!({}), &container, Level::Restricted).runs;
        assert_eq!(runs, Runs::App { uid: 65532, gid: 65532 });
        assert_eq!(with_observed_ids(&json!({"name": "app"}), &json!({})), json!({"name": "app"}));
    }
}
