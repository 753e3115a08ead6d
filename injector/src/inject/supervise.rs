//! devsync-run as what the app's container starts. An init container of the agent's image brings the program, so that
//! the app's image needs nothing.

use devsync_protocol::contract::annotation::COMMAND;
use devsync_protocol::contract::{
    INSTALL_CONTAINER, RUN_DIR, RUN_EXEC_COPY, RUN_IN_IMAGE, RUN_INSTALL, RUN_MOUNT, RUN_PROGRAM, RUN_WAIT,
    RUN_WAITED, STATE_DIR, VOLUME, WORKSPACE_SEED_MOUNT, WORKSPACE_WAITED,
};
use serde_json::{Value, json};

use super::pod::Pod;
use super::workspace;
use crate::agent::drop_null;
use crate::original::{remove, set};
use crate::security;

impl Pod<'_> {
    /// Wraps the app's containers, where that was asked for and their command is known.
    pub(super) fn supervise(&mut self) {
        if !self.asked.is_supervised() {
            return;
        }
        for index in self.apps.clone() {
            let name = self.container_name(index).to_owned();
            match self.command(index) {
                Ok(Some(argv)) => self.wrap(index, &argv),
                Ok(None) => {}
                Err(why) => self.warnings.push(format!("container {name} is not under devsync-run: {why}")),
            }
        }
    }

    /// What the container starts; none where that is a devsync-run of its own.
    fn command(&mut self, index: usize) -> Result<Option<Vec<String>>, String> {
        let container = self.container(index);
        let stated = words(&container["command"]).ok_or("its command is no list of words")?;
        let args = words(&container["args"]).ok_or("its args are no list of words")?;
        let of_pod = self.asked.command.clone();
        let is_stated = !stated.is_empty();
        let command = match of_pod {
            Some(command) if !is_stated => command,
            _ => stated,
        };
        if command.first().is_some_and(|program| program.rsplit('/').next() == Some(RUN_PROGRAM)) {
            return Ok(None);
        }
        if command.is_empty() {
            return Err(format!(
                "its spec has no command, and an image's own cannot be seen from here; hint: annotation {COMMAND}: \
                 '[\"/app/server\"]'"
            ));
        }
        if mounts_at(container, RUN_MOUNT) {
            return Err(format!("it has a volume at {RUN_MOUNT}; hint: mount that elsewhere"));
        }
        if is_stated && self.asked.command.is_some() {
            self.warnings.push(format!(
                "annotation {COMMAND} is not used for container {}: its spec has a command",
                self.container_name(index)
            ));
        }
        Ok(Some(command.into_iter().chain(args).collect()))
    }

    fn wrap(&mut self, index: usize, argv: &[String]) {
        let mut command = vec![format!("{RUN_MOUNT}/{RUN_PROGRAM}")];
        if self.asked.wait {
            command.push(RUN_WAIT.to_owned());
            command.extend(self.waited(index));
        }
        // No volume can lie over what is in `/`: its copy in the workspace is started.
        let is_in_root = argv[0].strip_prefix('/').is_some_and(|rest| !rest.contains('/'));
        if let Some(workspace) =
            self.asked.workspace.clone().filter(|_| is_in_root && self.seeded.contains(&index))
        {
            command.extend([RUN_EXEC_COPY.to_owned(), workspace]);
        }
        command.push("--".to_owned());
        command.extend(argv.iter().cloned());
        self.change(index, |fields, container| {
            set(fields, container, "command", json!(command));
            remove(fields, container, "args");
        });
        self.mount(index, program());
        self.install();
        self.wrapped.push(index);
        let wait = if self.asked.wait { ", and waits for the first sync" } else { "" };
        self.did.push(format!("container {} runs under devsync-run{wait}", self.container_name(index)));
    }

    /// What was synced outlives a container in a workspace: the next one need not wait.
    fn waited(&mut self, index: usize) -> Vec<String> {
        let Some(number) = self.seeded.iter().position(|seeded| *seeded == index) else { return Vec::new() };
        self.mount(index, workspace::state(number));
        vec![RUN_WAITED.to_owned(), format!("{WORKSPACE_SEED_MOUNT}/{WORKSPACE_WAITED}")]
    }

    /// The init container that brings devsync-run, once, before those that use it. It needs no right at all: the volume
    /// is everybody's.
    pub(super) fn install(&mut self) {
        if std::mem::replace(&mut self.is_installed, true) {
            return;
        }
        let mut container = json!({
            "name": INSTALL_CONTAINER,
            "image": self.asked.agent_image,
            "imagePullPolicy": self.config.image_pull_policy,
            "command": [RUN_IN_IMAGE, RUN_INSTALL, format!("{STATE_DIR}/{RUN_DIR}")],
            "resources": self.resources(),
            "securityContext": security::without_rights(self.place.level, self.app()),
            "volumeMounts": [{"name": VOLUME, "mountPath": STATE_DIR}],
        });
        drop_null(&mut container, "resources");
        self.push("initContainers", container);
    }
}

/// Where devsync-run is in a container that starts it.
pub(super) fn program() -> Value {
    json!({"name": VOLUME, "mountPath": RUN_MOUNT, "subPath": RUN_DIR, "readOnly": true})
}

/// A list of words; empty where there is none.
fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(words) => words.iter().map(|word| word.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// True where a volume or device is mounted at a path.
pub(super) fn mounts_at(container: &Value, path: &str) -> bool {
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    mounts.filter_map(|mount| mount["mountPath"].as_str()).any(|at| at.trim_end_matches('/') == path)
}
