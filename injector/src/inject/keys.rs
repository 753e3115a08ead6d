//! Public keys for the agent, from the pod's own annotation or a ConfigMap: a volume, and the file in it.

use devsync_protocol::contract::annotation::{KEYS, KEYS_FROM};
use devsync_protocol::contract::{KEYS_DIR, KEYS_FILE, KEYS_VOLUME};
use serde_json::{Value, json};

use super::pod::Pod;

impl Pod<'_> {
    /// Adds the volume; the path of the file. The pod starts without the ConfigMap too, and takes it up when it comes.
    pub(super) fn add_keys(&mut self) -> Option<String> {
        let source = self.keys_source()?;
        let volume = json!({"name": KEYS_VOLUME, "projected": {"defaultMode": 0o444, "sources": [source]}});
        self.push("volumes", volume);
        Some(format!("{KEYS_DIR}/{KEYS_FILE}"))
    }

    fn keys_source(&mut self) -> Option<Value> {
        let annotations = &self.template.get("metadata").unwrap_or(&Value::Null)["annotations"];
        if self.asked.keys {
            if annotations.get(KEYS_FROM).is_some() {
                self.warnings.push(format!("annotation {KEYS_FROM} is not used: {KEYS} is there too"));
            }
            let field = format!("metadata.annotations['{KEYS}']");
            return Some(
                json!({"downwardAPI": {"items": [{"path": KEYS_FILE, "fieldRef": {"fieldPath": field}}]}}),
            );
        }
        let name = self.asked.keys_from.clone()?;
        let items = json!([{"key": KEYS_FILE, "path": KEYS_FILE}]);
        Some(json!({"configMap": {"name": name, "items": items, "optional": true}}))
    }
}

/// The mount for the agent's container.
pub(super) fn mount() -> Value {
    json!({"name": KEYS_VOLUME, "mountPath": KEYS_DIR, "readOnly": true})
}
