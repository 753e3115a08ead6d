//! What an installation decides for all of its pods. Annotations of a pod go before it.

use devsync_protocol::contract::AGENT_IMAGE;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::agent;
use crate::annotations::{Probes, Restart, RunAs, is_config_map, is_image};
use crate::resources;

/// The ConfigMap's `config.yaml`, all of it optional.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The agent's image.
    pub agent_image: String,
    /// Always, IfNotPresent or Never.
    pub image_pull_policy: String,
    /// A Secret of the pod's namespace with the registry's credentials.
    pub image_pull_secret: Option<String>,
    /// A ConfigMap of the pod's namespace whose key `authorized_keys` has public keys.
    pub keys_from: Option<String>,
    /// `requests` and `limits` of the agent's container, where they differ from the defaults.
    pub resources: Value,
    pub restart: Restart,
    pub probes: Probes,
    pub run_as: RunAs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent_image: AGENT_IMAGE.to_owned(),
            // With Kubernetes' own default a tag `latest` is never taken from the node.
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secret: None,
            keys_from: None,
            resources: agent::resources(),
            restart: Restart::default(),
            probes: Probes::default(),
            run_as: RunAs::default(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("line {line}, column {column}: {message}")]
    Yaml { line: u64, column: u64, message: String },
    #[error("{0}")]
    Unreadable(String),
    #[error("{field}: {value} is {why}")]
    Value { field: &'static str, value: String, why: String },
}

impl Config {
    /// Reads and checks the YAML text; an empty one gives the defaults.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let is_empty =
            text.lines().all(|line| matches!(line.trim_start().as_bytes().first(), None | Some(b'#')));
        if is_empty {
            return Ok(Self::default());
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let read: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml(&error))?;
        read.checked()
    }

    fn checked(mut self) -> Result<Self, ConfigError> {
        let wrong = |field, value: &str, why: &str| {
            Err(ConfigError::Value { field, value: format!("{value:?}"), why: why.to_owned() })
        };
        if !is_image(&self.agent_image) {
            return wrong("agentImage", &self.agent_image, "no image's name");
        }
        if !["Always", "IfNotPresent", "Never"].contains(&self.image_pull_policy.as_str()) {
            return wrong("imagePullPolicy", &self.image_pull_policy, "none of Always, IfNotPresent, Never");
        }
        if let Some(name) = self.image_pull_secret.as_deref().filter(|name| !is_config_map(name)) {
            return wrong("imagePullSecret", name, "no Secret's name");
        }
        if let Some(name) = self.keys_from.as_deref().filter(|name| !is_config_map(name)) {
            return wrong("keysFrom", name, "no ConfigMap's name");
        }
        self.resources = resources::merged(&agent::resources(), &self.resources).map_err(|why| {
            ConfigError::Value { field: "resources", value: self.resources.to_string(), why }
        })?;
        Ok(self)
    }
}

fn yaml(error: &serde_saphyr::Error) -> ConfigError {
    let message = error.to_string();
    match error.location() {
        Some(at) => {
            let (line, column) = (at.line(), at.column());
            // It says so itself too, at the end.
            let end = format!(" at line {line}, column {column}");
            let message = message.strip_suffix(&end).unwrap_or(&message).to_owned();
            ConfigError::Yaml { line, column, message }
        }
        None => ConfigError::Unreadable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        for text in ["", "# nothing yet\n", "{}"] {
            assert_eq!(Config::from_yaml(text).expect("fine"), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn every_field_is_read() {
        let config = Config::from_yaml(
            "agentImage: mirror.example:5000/agent:1\nimagePullPolicy: Always\nimagePullSecret: mirror\n\
             keysFrom: team-keys\nresources:\n  limits: {memory: 256Mi, cpu: null}\nrestart: supervise\n\
             probes: strip\nrunAs: app\n",
        );
        let config = config.expect("fine");
        assert_eq!(config.agent_image, "mirror.example:5000/agent:1");
        assert_eq!(
            (config.restart, config.probes, config.run_as),
            (Restart::Supervise, Probes::Strip, RunAs::App)
        );
        assert_eq!(config.resources["limits"], serde_json::json!({"memory": "256Mi"}));
    }

    #[test]
    fn a_mistake_has_a_line_and_a_column() {
        let said = |text: &str| Config::from_yaml(text).expect_err(text).to_string();
        let unknown = said("probes: keep\nprobe: keep\n");
        assert!(unknown.starts_with("line 2, column 1: ") && unknown.contains("probe"), "{unknown}");
        let value = said("probes: relaxed\n");
        assert!(
            value.starts_with("line 1, column 9: ") && value.contains("none of keep, relax, strip"),
            "{value}"
        );
        let syntax = said("probes: [keep\n");
        assert!(syntax.starts_with("line "), "{syntax}");
        assert_eq!(
            said("imagePullPolicy: Sometimes"),
            "imagePullPolicy: \"Sometimes\" is none of Always, IfNotPresent, Never"
        );
        assert!(said("resources: {limits: {memory: 1}}").contains("32Mi"));
    }
}
