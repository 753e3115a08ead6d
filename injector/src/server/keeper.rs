//! Keeps the certificates: follows the Secret and the webhook configuration, serves what the Secret says, and does the
//! next step of a rotation while it holds the Lease.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use super::certificate::{CertificateError, Pair};
use super::lease;
use super::metrics::Metrics;
use super::names::Names;
use super::replicas::{self, ReplicaError};
use super::rotation::{Step, Timing, plan};
use super::store::{Store, seconds};
use super::tls::Served;

/// One step, at most: within the Lease's time.
const STEP_WITHIN: Duration = Duration::from_secs(20);
/// When another has the Lease or a step failed; what changed in the cluster wakes earlier.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest sleep: clocks are set, and timers of a suspended machine stand still.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

#[derive(Debug, Error)]
pub(super) enum KeepError {
    #[error("{what} cannot be {done}")]
    Api { what: String, done: &'static str, source: kube::Error },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("a replica does not serve the next certificate yet")]
    Replica(#[from] ReplicaError),
}

/// What the watches show; `None` until they have shown anything.
type Seen<T> = watch::Receiver<Option<Option<T>>>;

pub(super) struct Keeper {
    names: Names,
    timing: Timing,
    client: Client,
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    leases: Api<Lease>,
    served: Arc<Served>,
    metrics: Metrics,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        names: Names,
        timing: Timing,
        served: Arc<Served>,
        metrics: Metrics,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            webhooks: Api::all(client.clone()),
            leases: Api::namespaced(client.clone(), &names.namespace),
            names,
            timing,
            client,
            served,
            metrics,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn keep(
        self,
        mut secret: Seen<Secret>,
        mut webhook: Seen<MutatingWebhookConfiguration>,
    ) {
        let mut last = None;
        loop {
            let (seen, configuration) = (current(&mut secret).await, current(&mut webhook).await);
            let pause = match seen {
                Some(seen) => {
                    let store = Store::of(&seen);
                    if last.as_ref() != Some(&store.served) {
                        self.serve(&store);
                        last = Some(store.served.clone());
                    }
                    self.step(&store, configuration.as_ref()).await
                }
                None => {
                    tracing::error!(
                        secret = self.names.secret,
                        "the Secret is not there; `devsync install` (or the chart) makes it"
                    );
                    LONGEST
                }
            };
            tokio::select! {
                _ = secret.changed() => {}
                _ = webhook.changed() => {}
                () = tokio::time::sleep(pause.min(LONGEST)) => {}
            }
        }
    }

    fn serve(&self, store: &Store) {
        if store.served.is_none() {
            return;
        }
        match store.certified() {
            Ok(certified) => {
                let until = store.term.map_or(0, |term| term.until);
                self.metrics.certificate_expires.set(i64::try_from(until).unwrap_or(0));
                self.served.set(certified);
                tracing::info!(until, "serving the certificate of the Secret");
            }
            Err(error) => tracing::error!(%error, "the Secret's certificate cannot be served"),
        }
    }

    /// Does what is next, if anything, and says how long nothing is to be done.
    async fn step(&self, store: &Store, webhook: Option<&MutatingWebhookConfiguration>) -> Duration {
        let planned = self.plan(store, webhook);
        if let Step::Wait(pause) = planned {
            return pause;
        }
        let taken = lease::take(&self.leases, &self.names.lease, &self.names.replica);
        let held = match timeout(STEP_WITHIN, taken).await {
            Ok(Ok(Some(held))) => held,
            Ok(Ok(None)) | Err(_) => return AGAIN,
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = self.names.lease, "the lease cannot be taken");
                return AGAIN;
            }
        };
        let done = timeout(STEP_WITHIN, self.act()).await;
        held.give_back().await;
        match done {
            // The watch shows what was written, and wakes this replica; if it was written already, it will.
            Ok(Ok(pause)) => pause,
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "a step of the certificate's rotation");
                AGAIN
            }
            Err(_) => AGAIN,
        }
    }

    fn plan(&self, store: &Store, webhook: Option<&MutatingWebhookConfiguration>) -> Step {
        let bundle = webhook.and_then(|webhook| bundle(webhook));
        let bundle = webhook.map(|_| bundle.map(|b| b.0.as_slice()).unwrap_or_default());
        plan(store, bundle, &self.names.dns(), SystemTime::now(), &self.timing)
    }

    /// Reads what is there now, and does what that asks for.
    async fn act(&self) -> Result<Duration, KeepError> {
        let secret = self.secrets.get(&self.names.secret).await;
        let secret = secret.map_err(|source| self.api("Secret", &self.names.secret, "read", source))?;
        let webhook = self.webhooks.get_opt(&self.names.webhook).await;
        let webhook = webhook.map_err(|source| {
            self.api("MutatingWebhookConfiguration", &self.names.webhook, "read", source)
        })?;
        let store = Store::of(&secret);
        let (now, names, lifetime) = (SystemTime::now(), self.names.dns(), self.timing.lifetime);
        let next = match self.plan(&store, webhook.as_ref()) {
            Step::Wait(_) => return Ok(AGAIN),
            Step::Trust => {
                if let Some(webhook) = webhook {
                    self.trust(&webhook, &store).await?;
                }
                return Ok(AGAIN);
            }
            Step::Make { why } => {
                tracing::info!(why, "a new certificate, at once");
                store.made(self.pair(&names, now)?, now, lifetime)
            }
            Step::Prepare { why } => {
                tracing::info!(why, "the next certificate");
                store.prepared(self.pair(&names, now)?, now, lifetime)
            }
            Step::NoteTrust => Store { trusted: Some(seconds(now)), ..store },
            Step::Promote => {
                tracing::info!("the next certificate is served");
                store.promoted()
            }
            Step::Forget => {
                let left = store.forgotten(&names, now)?;
                replicas::all_serve(&self.client, &self.names, &left.authorities).await?;
                tracing::info!("every replica serves it: the last authority is trusted no longer");
                left
            }
        };
        self.write(secret, &next).await?;
        Ok(AGAIN)
    }

    fn pair(&self, names: &[String], now: SystemTime) -> Result<Pair, CertificateError> {
        let pair = Pair::make(names, now, self.timing.lifetime)?;
        self.metrics.rotations.inc();
        Ok(pair)
    }

    /// With the version that was read: whoever was quicker has done it.
    async fn write(&self, mut secret: Secret, store: &Store) -> Result<(), KeepError> {
        store.write(&mut secret);
        match self.secrets.replace(&self.names.secret, &PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => Err(self.api("Secret", &self.names.secret, "written", source)),
            Ok(_) => Ok(()),
        }
    }

    /// Sets the caBundle, and nothing else, of the webhooks in the configuration.
    async fn trust(&self, webhook: &MutatingWebhookConfiguration, store: &Store) -> Result<(), KeepError> {
        let bundle = ByteString(store.authorities.as_bytes().to_vec());
        // Merged by name; with the version that was read.
        let webhooks = webhook.webhooks.iter().flatten();
        let webhooks: Vec<_> = webhooks
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let version = &webhook.metadata.resource_version;
        let patch = Patch::Strategic(json!({"metadata": {"resourceVersion": version}, "webhooks": webhooks}));
        let params = PatchParams { field_manager: Some(self.names.app.clone()), ..PatchParams::default() };
        match self.webhooks.patch(&self.names.webhook, &params, &patch).await {
            Ok(_) => {
                tracing::info!(authorities = store.trusts(), "the webhook configuration's caBundle is set");
                Ok(())
            }
            // Somebody changed it in between: the watch shows that too.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => {
                Err(self.api("MutatingWebhookConfiguration", &self.names.webhook, "patched", source))
            }
        }
    }

    fn api(&self, kind: &str, name: &str, done: &'static str, source: kube::Error) -> KeepError {
        KeepError::Api { what: format!("{kind} {name}"), done, source }
    }
}

fn bundle(webhook: &MutatingWebhookConfiguration) -> Option<&ByteString> {
    webhook.webhooks.as_ref()?.first()?.client_config.ca_bundle.as_ref()
}

/// What a watch shows now; waits until it has shown anything.
async fn current<T: Clone>(seen: &mut Seen<T>) -> Option<T> {
    let shown = seen.wait_for(Option::is_some).await.map(|value| value.clone().flatten());
    match shown {
        Ok(value) => value,
        Err(_) => std::future::pending().await,
    }
}
