//! The objects that tests put into a cluster, as a team would write them, with an agent beside the app or without.

use devsync_protocol::contract;
use serde_json::{Value, json};

/// The agent's image as `scripts/images agent` names it.
pub const AGENT_IMAGE: &str = "localhost/devsync-agent:dev";
/// The same with tools, as `scripts/images toolbox` names it.
pub const TOOLBOX_IMAGE: &str = "localhost/devsync-toolbox:dev";
/// The demo's services as `scripts/images demo` names them: root's files, run as 65532.
pub const RUST: &str = "localhost/devsync-demo-rust:dev";
pub const PYTHON: &str = "localhost/devsync-demo-python:dev";
pub const GO: &str = "localhost/devsync-demo-go:dev";
pub const NODE: &str = "localhost/devsync-demo-node:dev";
pub const PYTHON_PACKAGE: &str = "localhost/devsync-demo-python-package:dev";
/// The service in Rust, its file owned by the user that it runs as.
pub const RUST_OWNED: &str = "localhost/devsync-demo-rust:owned";

/// How an agent stands beside the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// None: attach has to add one.
    Absent,
    /// Root with the runtime's default capabilities: what the baseline level allows.
    Baseline,
    /// The app's own ids and nothing more: what the restricted level allows.
    Restricted,
}

/// A Deployment called `demo` whose pods have the label `app: demo` and the container `app`.
pub fn demo(image: &str, replicas: u32, agent: Agent) -> Value {
    let mut app = json!({
        "name": "app",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/add/1/1", "port": 8080}, "periodSeconds": 1, "failureThreshold": 30},
    });
    if agent == Agent::Restricted {
        app["securityContext"] = restricted();
    }
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [app]});
    if agent != Agent::Absent {
        add_agent(&mut spec, agent);
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "labels": {"app": "demo"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "demo"}},
            "template": {"metadata": {"labels": {"app": "demo"}}, "spec": spec},
        },
    })
}

/// The same Deployment, its agent the one with tools.
pub fn with_toolbox(mut demo: Value) -> Value {
    let containers = demo["spec"]["template"]["spec"]["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        if container["name"] == contract::AGENT_CONTAINER {
            container["image"] = json!(TOOLBOX_IMAGE);
        }
    }
    demo
}

/// Adds the agent's container and its volume to a pod's spec.
fn add_agent(spec: &mut Value, agent: Agent) {
    let security = match agent {
        Agent::Restricted => restricted(),
        _ => json!({"runAsUser": 0, "runAsGroup": 0}),
    };
    let container = json!({
        "name": contract::AGENT_CONTAINER,
        "image": AGENT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve"],
        "securityContext": security,
        "volumeMounts": [{"name": contract::VOLUME, "mountPath": contract::STATE_DIR}],
    });
    if let Some(containers) = spec["containers"].as_array_mut() {
        containers.push(container);
    }
    spec["volumes"] = json!([{"name": contract::VOLUME, "emptyDir": {}}]);
    spec["shareProcessNamespace"] = json!(true);
}

fn restricted() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}
