//! A volume in the place of a directory of the app: writable under the restricted level, over files of root and with a
//! read-only root, and it outlives a restart of the container. An init container of the app's own image fills it.

use devsync_protocol::contract::{
    RUN_MOUNT, RUN_PROGRAM, RUN_SEED, SEED_CONTAINER, WORKSPACE, WORKSPACE_FILES, WORKSPACE_SEED_MOUNT,
    WORKSPACE_STATE,
};
use serde_json::{Value, json};

use super::pod::Pod;
use super::supervise::program;
use crate::agent::drop_null;
use crate::annotations::is_within;
use crate::security::{self, Level};

impl Pod<'_> {
    pub(super) fn add_workspace(&mut self) {
        let Some(path) = self.asked.workspace.clone() else { return };
        for index in self.apps.clone() {
            let name = self.container_name(index).to_owned();
            if let Some((at, volume)) = covering(self.container(index), &path) {
                self.warnings.push(format!(
                    "container {name} has no workspace at {path}: the volume {volume} is mounted at {at} already"
                ));
                continue;
            }
            self.install();
            let number = self.seeded.len();
            self.push("volumes", json!({"name": numbered(WORKSPACE, number), "emptyDir": {}}));
            let seed = self.seed(index, number, &path);
            self.push("initContainers", seed);
            self.mount(
                index,
                json!({"name": numbered(WORKSPACE, number), "mountPath": path, "subPath": WORKSPACE_FILES}),
            );
            self.seeded.push(index);
            self.did.push(format!("container {name} has a workspace volume at {path}"));
        }
    }

    /// The init container that copies the image's directory. It mounts the volume elsewhere, or the image's own files
    /// would be hidden, and none of the app's other volumes.
    fn seed(&self, index: usize, number: usize, path: &str) -> Value {
        let app = self.container(index);
        let mut container = json!({
            "name": numbered(SEED_CONTAINER, number),
            "image": app["image"],
            "imagePullPolicy": app["imagePullPolicy"],
            "command": [
                format!("{RUN_MOUNT}/{RUN_PROGRAM}"),
                RUN_SEED,
                path,
                format!("{WORKSPACE_SEED_MOUNT}/{WORKSPACE_FILES}"),
            ],
            "resources": self.resources(),
            "securityContext": self.seed_context(app),
            "volumeMounts": [
                program(),
                {"name": numbered(WORKSPACE, number), "mountPath": WORKSPACE_SEED_MOUNT},
            ],
        });
        for field in ["image", "imagePullPolicy", "resources"] {
            drop_null(&mut container, field);
        }
        container
    }

    /// It reads what the app may read: up to baseline with the capabilities that the app keeps, for files of others.
    fn seed_context(&self, app: &Value) -> Value {
        let mut context = security::without_rights(self.place.level, app);
        if self.place.level < Level::Restricted
            && let Some(fields) = context.as_object_mut()
        {
            match &app["securityContext"]["capabilities"]["drop"] {
                Value::Null => fields.shift_remove("capabilities"),
                dropped => fields.insert("capabilities".to_owned(), json!({"drop": dropped})),
            };
        }
        context
    }
}

/// Where devsync-run notes that what was synced lies in the volume, out of the app's own directory.
pub(super) fn state(number: usize) -> Value {
    json!({"name": numbered(WORKSPACE, number), "mountPath": WORKSPACE_SEED_MOUNT, "subPath": WORKSPACE_STATE})
}

/// The first has the plain name.
fn numbered(name: &str, number: usize) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}-{}", number + 1) }
}

/// The volume that has a directory already, or one above it.
fn covering<'a>(container: &'a Value, path: &str) -> Option<(&'a str, &'a str)> {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    mounts
        .filter_map(|mount| Some((mount["mountPath"].as_str()?, mount["name"].as_str().unwrap_or_default())))
        .find(|(at, _)| {
            is_within(path, Some(at.trim_end_matches('/')).filter(|at| !at.is_empty()).unwrap_or("/"))
        })
}
