//! Which containers are the app's.

use serde_json::Value;

use super::pod::Pod;
use crate::annotations::Restart;

/// kubectl's own word for the container that a person means.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Containers that other injectors add: never the app.
const SIDECARS: [&str; 12] = [
    "istio-proxy",
    "linkerd-proxy",
    "envoy",
    "envoy-sidecar",
    "kuma-sidecar",
    "consul-dataplane",
    "daprd",
    "vault-agent",
    "cloud-sql-proxy",
    "otc-container",
    "jaeger-agent",
    "fluent-bit",
];

impl Pod<'_> {
    /// The containers that the annotation names, else kubectl's default container, else the first that is no known
    /// sidecar.
    pub(super) fn find_app(&mut self) {
        let names: Vec<String> =
            (0..self.containers().len()).map(|index| self.container_name(index).to_owned()).collect();
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let missing: Vec<_> =
            self.asked.containers.iter().filter(|name| place(name).is_none()).cloned().collect();
        for name in &missing {
            self.warnings.push(format!(
                "annotation devsync.dev/container: there is no container {name:?}; there are {}",
                names.join(", ")
            ));
        }
        self.apps = self.asked.containers.iter().filter_map(|name| place(name)).collect();
        if !self.apps.is_empty() || !missing.is_empty() {
            return;
        }
        let annotations = &self.template.get("metadata").unwrap_or(&Value::Null)["annotations"];
        let default = annotations[DEFAULT_CONTAINER].as_str().and_then(place);
        let first = || names.iter().position(|name| !SIDECARS.contains(&name.as_str()));
        self.apps = default.or_else(first).into_iter().collect();
        let others = names.iter().filter(|name| !SIDECARS.contains(&name.as_str())).count() > 1;
        let is_changed = self.asked.is_supervised()
            || self.asked.restart == Restart::Supervise
            || self.asked.workspace.is_some()
            || self.asked.dev_image.is_some();
        if default.is_none() && others && is_changed {
            let app = self.apps.first().map(|index| names[*index].clone()).unwrap_or_default();
            self.warnings.push(format!(
                "container {app} is taken for the app's, of {}; hint: annotation devsync.dev/container",
                names.join(", ")
            ));
        }
    }

    /// The container whose ids the agent fits; with several the first.
    pub(super) fn app(&self) -> &Value {
        self.container(self.apps.first().copied().unwrap_or(0))
    }
}
