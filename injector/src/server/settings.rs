//! The configuration of the moment: the last one that could be read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use thiserror::Error;
use tokio::sync::watch;

use super::metrics::Metrics;
use crate::Config;

/// More is no configuration.
const LARGEST: usize = 256 * 1024;

#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("there is no ConfigMap {0}")]
    Missing(String),
    #[error("the ConfigMap {map} has no key {key}")]
    NoKey { map: String, key: String },
    #[error("the configuration is larger than {LARGEST} bytes")]
    Large,
    #[error("the configuration cannot be read: {0}")]
    Broken(String),
}

/// The configuration, for those who use it and for the one who sets it.
#[derive(Debug)]
pub(super) struct Settings {
    now: watch::Sender<Arc<Config>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { now: watch::channel(Arc::default()).0 }
    }
}

impl Settings {
    pub(super) fn now(&self) -> Arc<Config> {
        self.now.borrow().clone()
    }

    /// Takes over a configuration; a broken one changes nothing, and is told.
    pub(super) fn read(&self, text: &str, metrics: &Metrics) -> Result<(), SettingsError> {
        let read = parse(text);
        metrics.configuration(read.is_ok());
        let config = read?;
        if *self.now() != config {
            tracing::info!(?config, "another configuration");
            self.now.send_replace(Arc::new(config));
        }
        Ok(())
    }

    /// The same with what a watch shows.
    pub(super) fn seen(&self, map: Option<&ConfigMap>, name: &str, key: &str, metrics: &Metrics) {
        let text = match map {
            None => Err(SettingsError::Missing(name.to_owned())),
            Some(map) => map
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .ok_or_else(|| SettingsError::NoKey { map: name.to_owned(), key: key.to_owned() }),
        };
        let read = match text {
            Ok(text) => self.read(text, metrics),
            Err(error) => {
                metrics.configuration(false);
                Err(error)
            }
        };
        if let Err(error) = read {
            tracing::error!(%error, "the last good configuration stays in use");
        }
    }
}

fn parse(text: &str) -> Result<Config, SettingsError> {
    if text.len() > LARGEST {
        return Err(SettingsError::Large);
    }
    Config::from_yaml(text).map_err(|error| SettingsError::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_configuration_leaves_the_last_good_one() {
        let (settings, metrics) = (Settings::default(), Metrics::default());
        settings.read("agentImage: mirror/agent:1\n", &metrics).expect("good");
        let said = settings.read("agentImage: [\n", &metrics).expect_err("broken").to_string();
        assert!(said.contains("line"), "{said}");
        let unknown = settings.read("agentimage: x\n", &metrics).expect_err("a typo").to_string();
        assert!(unknown.contains("agentimage"), "{unknown}");
        settings.seen(None, "devsync-injector", "config.yaml", &metrics);
        assert_eq!(settings.now().agent_image, "mirror/agent:1");
        assert!(metrics.text().expect("text").contains("devsync_injector_configuration_good 0"));
        settings.read("# nothing\n", &metrics).expect("the default");
        assert_eq!(*settings.now(), Config::default());
        assert!(metrics.text().expect("text").contains("devsync_injector_configuration_good 1"));
    }
}
