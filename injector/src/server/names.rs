//! What the installation's objects are called.

use devsync_protocol::contract::{INJECTOR, INJECTOR_CONFIG_KEY, INJECTOR_TLS};

/// Names of the objects that one installation reads and writes.
#[derive(Debug, Clone)]
pub struct Names {
    pub namespace: String,
    /// This replica: its pod's name.
    pub replica: String,
    pub service: String,
    pub secret: String,
    pub config_map: String,
    pub config_key: String,
    pub lease: String,
    /// The MutatingWebhookConfiguration.
    pub webhook: String,
    /// The label `app.kubernetes.io/name` of the replicas.
    pub app: String,
}

impl Names {
    /// Those of the manifests; `webhook` is the only one that differs between installations of one cluster.
    pub fn of(namespace: &str, replica: &str, webhook: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            replica: replica.to_owned(),
            service: INJECTOR.to_owned(),
            secret: INJECTOR_TLS.to_owned(),
            config_map: INJECTOR.to_owned(),
            config_key: INJECTOR_CONFIG_KEY.to_owned(),
            lease: INJECTOR.to_owned(),
            webhook: webhook.to_owned(),
            app: INJECTOR.to_owned(),
        }
    }

    /// The names under which API servers and people reach the Service; the first is the one that API servers ask for.
    pub fn dns(&self) -> Vec<String> {
        let first = format!("{}.{}.svc", self.service, self.namespace);
        let long = format!("{first}.cluster.local");
        vec![first, long]
    }
}
