//! The agent's container and its volume, as the client's sidecar and the injector put them into a pod's spec. Pure.

use devsync_protocol::contract::{AGENT_CONTAINER, AGENT_IMAGE, STATE_DIR, VOLUME};
use serde_json::{Value, json};

/// What an agent's container is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub image: String,
    pub pull_policy: String,
    /// A Secret of the pod's namespace with the registry's credentials.
    pub pull_secret: Option<String>,
    /// The container's `securityContext`.
    pub context: Value,
    /// The container's `resources`; null leaves them out.
    pub resources: Value,
}

impl Agent {
    pub fn new(context: Value) -> Self {
        Self {
            image: AGENT_IMAGE.to_owned(),
            // With the default policy a tag `latest` is never taken from the node.
            pull_policy: "IfNotPresent".to_owned(),
            pull_secret: None,
            context,
            resources: resources(),
        }
    }

    /// The sidecar.
    pub fn container(&self) -> Value {
        let mut container = json!({
            "name": AGENT_CONTAINER,
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "args": ["serve"],
            "resources": self.resources,
            "securityContext": self.context,
            "volumeMounts": [{"name": VOLUME, "mountPath": STATE_DIR}],
        });
        drop_null(&mut container, "resources");
        container
    }
}

/// Leaves a field out that has nothing in it.
pub(crate) fn drop_null(container: &mut Value, field: &str) {
    if let Some(fields) =
        container.as_object_mut().filter(|fields| fields.get(field).is_some_and(Value::is_null))
    {
        fields.shift_remove(field);
    }
}

/// Requests and limits are both stated, so that quotas pass; the limit on memory is the agent's budget while a large
/// file arrives, doubled. A small limit on CPU would slow each save down for nothing.
pub fn resources() -> Value {
    json!({
        "requests": {"cpu": "10m", "memory": "16Mi"},
        "limits": {"cpu": "2", "memory": "128Mi"},
    })
}

/// The volume for the agent's state.
pub fn volume() -> Value {
    json!({"name": VOLUME, "emptyDir": {}})
}

/// The agent's container in a pod's spec.
pub fn agent_in(pod_spec: &Value) -> Option<&Value> {
    let containers =
        ["containers", "initContainers"].into_iter().filter_map(|list| pod_spec[list].as_array());
    containers.flatten().find(|container| container["name"] == AGENT_CONTAINER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_without_resources_has_no_such_field() {
        let agent = Agent { resources: Value::Null, ..Agent::new(json!({})) };
        assert_eq!(agent.container().get("resources"), None);
        let container = Agent::new(json!({})).container();
        assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
        assert_eq!((container.get("ports"), &container["args"]), (None, &json!(["serve"])));
        assert!(agent_in(&json!({"initContainers": [container]})).is_some());
        assert_eq!(agent_in(&json!("x")), None);
    }
}
