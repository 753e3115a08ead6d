//! Waiting for an installation: until its replicas are ready, its authority is trusted, and API servers reach it.

use std::time::Duration;

use devsync_protocol::contract::{INJECTOR, INJECTOR_TLS};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::wait::{Condition, await_condition};
use tokio::time::timeout;

use super::{failure, quietly};
use crate::cluster::Cluster;
use crate::cluster::add::{Say, Step};
use crate::error::CommandError;

/// An image may have to be pulled.
const READY_WITHIN: Duration = Duration::from_secs(180);
const TRUSTED_WITHIN: Duration = Duration::from_secs(60);
/// The addresses of ready pods take a moment on their way.
const REACHED_WITHIN: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);

/// Waits until every replica of this version is ready.
pub(super) async fn replicas(
    cluster: &Cluster,
    namespace: &str,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let mut last = String::new();
    let done = async {
        let mut told = |deployment: Option<&Deployment>| {
            let (ready, text) = progress(deployment);
            if text != last {
                last.clone_from(&text);
                say(Step::Progress(text));
            }
            ready
        };
        let (seen, mut changes) = tokio::sync::mpsc::channel(16);
        let watched = await_condition(api, INJECTOR, Watched(seen));
        tokio::pin!(watched);
        loop {
            tokio::select! {
                Some(deployment) = changes.recv() => if told(deployment.as_ref()) { return Ok(()) },
                ended = &mut watched => return ended.map(drop),
            }
        }
    };
    match timeout(READY_WITHIN, done).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(failure(format!("deployment/{INJECTOR} cannot be watched")).cause(error.to_string()))
        }
        Err(_) => Err(why(cluster, namespace).await),
    }
}

/// Tells of each state of the Deployment; ends when nobody listens.
struct Watched(tokio::sync::mpsc::Sender<Option<Deployment>>);

impl Condition<Deployment> for Watched {
    fn matches_object(&self, deployment: Option<&Deployment>) -> bool {
        matches!(self.0.try_send(deployment.cloned()), Err(tokio::sync::mpsc::error::TrySendError::Closed(_)))
    }
}

fn progress(deployment: Option<&Deployment>) -> (bool, String) {
    let Some(deployment) = deployment else { return (false, format!("deployment/{INJECTOR} is not there")) };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let current = status.observed_generation == deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    let ready = if current { status.ready_replicas.unwrap_or(0).min(updated) } else { 0 };
    let done = current && ready >= wanted && status.replicas.unwrap_or(0) == updated;
    (done, format!("{ready} of {wanted} replicas are ready"))
}

/// What keeps the replicas from being ready, from their pods.
async fn why(cluster: &Cluster, namespace: &str) -> CommandError {
    let what = format!("devsync-injector is not ready within {} s", READY_WITHIN.as_secs());
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name={INJECTOR}"));
    let listed = quietly(pods.list(&params)).await;
    let cause = match listed {
        Err(error) => error,
        Ok(pods) if pods.items.is_empty() => "it has no pods: quotas or policies may refuse them".to_owned(),
        Ok(pods) => {
            pods.items.iter().find_map(stuck).unwrap_or_else(|| "its pods do not become ready".into())
        }
    };
    let flags = format!("-n {namespace}{}", cluster.context_flag());
    failure(what).cause(cause).hint(format!(
        "kubectl describe pods {flags}; kubectl logs deploy/{INJECTOR} {flags}; an image of your own registry: --image, \
         --agent-image"
    ))
}

fn stuck(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().unwrap_or_default();
        Some(format!("pod/{name}: {reason}: {}", waiting.message.clone().unwrap_or_default()))
    });
    waiting.or_else(|| {
        let refused = status.conditions.iter().flatten().find(|condition| condition.status == "False")?;
        Some(format!("pod/{name}: {}: {}", refused.type_, refused.message.clone().unwrap_or_default()))
    })
}

/// Waits until the webhook's configuration trusts what is served, and until the API server has an answer of it.
pub(super) async fn answers(
    cluster: &Cluster,
    namespace: &str,
    webhook: &str,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let flags = format!("-n {namespace}{}", cluster.context_flag());
    let trusted = await_condition(webhooks, webhook, |webhook: Option<&MutatingWebhookConfiguration>| {
        webhook.is_some_and(|webhook| super::health::bundle(webhook).is_some())
    });
    match timeout(TRUSTED_WITHIN, trusted).await {
        Ok(Ok(_)) => say(Step::Progress("API servers trust its certificate".to_owned())),
        Ok(Err(error)) => {
            return Err(failure(format!("mutatingwebhookconfiguration/{webhook} cannot be watched"))
                .cause(error.to_string()));
        }
        Err(_) => {
            let secret = quietly(secrets.get(INJECTOR_TLS)).await.err();
            return Err(failure("devsync-injector does not set its caBundle")
                .cause(secret.unwrap_or_else(|| "nothing is wrong with its Secret".to_owned()))
                .hint(format!("kubectl logs deploy/{INJECTOR} {flags}")));
        }
    }
    reached(cluster, namespace, say).await
}

/// Asks the webhook through the API server, over the way of admission: API server, Service, pod.
async fn reached(cluster: &Cluster, namespace: &str, say: &mut Say<'_>) -> Result<(), CommandError> {
    let path = format!("/api/v1/namespaces/{namespace}/services/https:{INJECTOR}:443/proxy/readyz");
    let asked = async {
        loop {
            let request = kube::core::Request::new(path.as_str());
            let Ok(request) = request.list(&ListParams::default()) else { return Ok(()) };
            match cluster.client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 403 => return Err(status.message.clone()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    };
    match timeout(REACHED_WITHIN, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(forbidden)) => {
            let text = format!("whether API servers reach it cannot be asked: {forbidden}");
            say(Step::Note { text, hint: None });
            Ok(())
        }
        Err(_) => Err(failure("the API server does not reach devsync-injector")
            .cause(format!("service/{INJECTOR} of {namespace} did not answer within {} s", REACHED_WITHIN.as_secs()))
            .hint("a firewall between control plane and nodes may have to let port 8443 pass; pods start without an agent meanwhile")),
    }
}
