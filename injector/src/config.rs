//! What an installation decides for all of its pods. Annotations of a pod go before it.

use devsync_protocol::contract::AGENT_IMAGE;
use serde::Deserialize;

/// The ConfigMap's `config.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The agent's image.
    pub agent_image: String,
    pub image_pull_policy: String,
    /// A Secret of the pod's namespace with the registry's credentials.
    pub image_pull_secret: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent_image: AGENT_IMAGE.to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secret: None,
        }
    }
}
