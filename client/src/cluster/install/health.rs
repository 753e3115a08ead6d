//! Why a pod has no agent although it should: the webhook's way, looked at link by link.

use std::fmt;

use devsync_protocol::contract::{
    AGENT_CONTAINER, ENABLED, INJECT, INJECTOR, INJECTOR_TLS, INJECTOR_WEBHOOK,
};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::Api;
use kube::api::ListParams;

use super::quietly;
use crate::cluster::Cluster;

/// A link that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No MutatingWebhookConfiguration has devsync's webhook.
    NoWebhook,
    /// Nobody answers behind its Service.
    NoEndpoints { namespace: String },
    /// API servers trust another authority than the one of its certificate.
    Distrusted { webhook: String, namespace: String },
    /// Nobody asked for it there.
    NotLabelled { namespace: String },
    /// The webhook's own selectors leave the namespace out.
    NotSelected { namespace: String, webhook: String },
    /// The pod says that it wants none.
    SwitchedOff { pod: String },
    /// The pod was made before the webhook was.
    Older { pod: String },
    /// All of that is well, and the pod has no agent: what was said when it was made is the reason.
    Unknown { pod: String },
    /// Something could not be read.
    Unreadable { what: String, why: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWebhook => write!(f, "devsync's webhook is not installed in this cluster"),
            Self::NoEndpoints { namespace } => {
                write!(
                    f,
                    "no replica of devsync-injector is ready in namespace {namespace}: pods start without an agent"
                )
            }
            Self::Distrusted { webhook, .. } => {
                write!(
                    f,
                    "mutatingwebhookconfiguration/{webhook} does not trust the certificate that is served"
                )
            }
            Self::NotLabelled { namespace } => {
                write!(f, "namespace {namespace} does not have the label {INJECT}={ENABLED}")
            }
            Self::NotSelected { namespace, webhook } => {
                write!(f, "mutatingwebhookconfiguration/{webhook} does not select namespace {namespace}")
            }
            Self::SwitchedOff { pod } => write!(f, "pod/{pod} is switched off by {INJECT}"),
            Self::Older { pod } => write!(f, "pod/{pod} is older than the webhook"),
            Self::Unknown { pod } => {
                write!(
                    f,
                    "pod/{pod} was made without an agent: the webhook was away then, or warned why it left it alone"
                )
            }
            Self::Unreadable { what, why } => write!(f, "{what} cannot be read: {why}"),
        }
    }
}

impl Finding {
    /// The command that mends it.
    pub fn hint(&self, cluster: &Cluster) -> String {
        let flag = cluster.context_flag();
        match self {
            Self::NoWebhook => format!("devsync install{flag}"),
            Self::NoEndpoints { namespace } => format!("kubectl describe pods -n {namespace}{flag}"),
            Self::Distrusted { namespace, .. } => {
                format!("kubectl logs deploy/{INJECTOR} -n {namespace}{flag}")
            }
            Self::NotLabelled { namespace } => {
                format!("kubectl label namespace {namespace} {INJECT}={ENABLED}{flag}")
            }
            Self::NotSelected { webhook, .. } => {
                format!("kubectl get mutatingwebhookconfiguration {webhook} -o yaml{flag}")
            }
            Self::SwitchedOff { .. } => format!("take {INJECT} out of the pod's template"),
            Self::Older { .. } | Self::Unknown { .. } => {
                format!("kubectl rollout restart {}{flag}; its warnings say more", "deployments")
            }
            Self::Unreadable { .. } => "kubectl auth can-i --list shows what you may do".to_owned(),
        }
    }
}

/// Looks at every link from the webhook to the namespace, and to the pod if one is named. Empty: all is well.
pub async fn diagnose(cluster: &Cluster, pod: Option<&str>) -> Vec<Finding> {
    let namespace = &cluster.namespace;
    let unreadable = |what: &str, why: String| vec![Finding::Unreadable { what: what.to_owned(), why }];
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let configurations = match quietly(webhooks.list(&ListParams::default())).await {
        Ok(list) => list.items,
        Err(why) => return unreadable("mutatingwebhookconfigurations", why),
    };
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let place = match quietly(namespaces.get(namespace)).await {
        Ok(place) => place,
        Err(why) => return unreadable(&format!("namespace {namespace}"), why),
    };
    let ours: Vec<_> = configurations.iter().filter_map(|c| Some((c, own(c)?))).collect();
    // The one that is meant for this namespace, if any is.
    let meant = ours.iter().find(|(_, webhook)| selects(webhook.namespace_selector.as_ref(), &place));
    let Some((configuration, webhook)) = meant.or(ours.first()) else { return vec![Finding::NoWebhook] };
    let mut found = way(cluster, configuration, webhook).await;
    let labels = place.metadata.labels.clone().unwrap_or_default();
    if labels.get(INJECT).is_none_or(|value| value != ENABLED) {
        found.push(Finding::NotLabelled { namespace: namespace.clone() });
    } else if !selects(webhook.namespace_selector.as_ref(), &place) {
        let webhook = configuration.metadata.name.clone().unwrap_or_default();
        found.push(Finding::NotSelected { namespace: namespace.clone(), webhook });
    }
    if let Some(pod) = pod {
        found.extend(of_pod(cluster, pod, configuration, found.is_empty()).await);
    }
    found
}

/// From the API server to a replica.
async fn way(
    cluster: &Cluster,
    configuration: &MutatingWebhookConfiguration,
    webhook: &MutatingWebhook,
) -> Vec<Finding> {
    let Some(service) = &webhook.client_config.service else { return Vec::new() };
    let mut found = Vec::new();
    let endpoints: Api<Endpoints> = Api::namespaced(cluster.client.clone(), &service.namespace);
    match quietly(endpoints.get_opt(&service.name)).await {
        Ok(endpoints) => {
            let subsets = endpoints.and_then(|endpoints| endpoints.subsets).unwrap_or_default();
            if !subsets.iter().any(|subset| subset.addresses.as_ref().is_some_and(|a| !a.is_empty())) {
                found.push(Finding::NoEndpoints { namespace: service.namespace.clone() });
            }
        }
        Err(why) => found.push(Finding::Unreadable {
            what: format!("endpoints {}/{}", service.namespace, service.name),
            why,
        }),
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &service.namespace);
    // Who may not read the Secret cannot compare; a bundle that is missing is seen all the same.
    let authorities = match quietly(secrets.get_opt(INJECTOR_TLS)).await {
        Ok(secret) => secret.and_then(|secret| secret.data?.remove("ca.crt")),
        Err(_) => None,
    };
    let trusted = bundle(configuration);
    let differs = authorities.is_some_and(|wanted| trusted != Some(wanted.0.as_slice()));
    if trusted.is_none() || differs {
        let webhook = configuration.metadata.name.clone().unwrap_or_default();
        found.push(Finding::Distrusted { webhook, namespace: service.namespace.clone() });
    }
    found
}

async fn of_pod(
    cluster: &Cluster,
    name: &str,
    configuration: &MutatingWebhookConfiguration,
    way_is_well: bool,
) -> Option<Finding> {
    let pod = match quietly(cluster.pods().get(name)).await {
        Ok(pod) => pod,
        Err(why) => return Some(Finding::Unreadable { what: format!("pod/{name}"), why }),
    };
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if containers.any(|container| container.name == AGENT_CONTAINER) {
        return None;
    }
    let pod_name = || name.to_owned();
    let says = |map: &Option<std::collections::BTreeMap<String, String>>| {
        map.as_ref().and_then(|map| map.get(INJECT)).is_some_and(|value| value != ENABLED)
    };
    if says(&pod.metadata.labels) || says(&pod.metadata.annotations) {
        return Some(Finding::SwitchedOff { pod: pod_name() });
    }
    let made = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let (of_pod, of_webhook) =
        (made(&pod.metadata.creation_timestamp), made(&configuration.metadata.creation_timestamp));
    if of_pod < of_webhook {
        return Some(Finding::Older { pod: pod_name() });
    }
    way_is_well.then(|| Finding::Unknown { pod: pod_name() })
}

fn own(configuration: &MutatingWebhookConfiguration) -> Option<&MutatingWebhook> {
    configuration.webhooks.iter().flatten().find(|webhook| webhook.name == INJECTOR_WEBHOOK)
}

/// The caBundle of devsync's webhook; `None` where it is empty.
pub(super) fn bundle(configuration: &MutatingWebhookConfiguration) -> Option<&[u8]> {
    let bundle = own(configuration)?.client_config.ca_bundle.as_ref()?;
    (!bundle.0.is_empty()).then_some(bundle.0.as_slice())
}

/// A label selector over a namespace's labels; old servers do not give it the label with its name.
fn selects(selector: Option<&LabelSelector>, namespace: &Namespace) -> bool {
    let Some(selector) = selector else { return true };
    let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
    if let Some(name) = &namespace.metadata.name {
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| name.clone());
    }
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let among =
            value.is_some_and(|value| expression.values.as_ref().is_some_and(|all| all.contains(value)));
        match expression.operator.as_str() {
            "In" => among,
            "NotIn" => !among,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    });
    equal && expressions
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_is_read_as_the_api_server_reads_it() {
        let namespace = |name: &str, labels| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))
                .expect("a namespace")
        };
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchLabels": {"team": "a"}, "matchExpressions": [
            {"key": INJECT, "operator": "In", "values": [ENABLED]},
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
            {"key": "off", "operator": "DoesNotExist"}]}))
            .expect("a selector");
        let both = json!({"team": "a", INJECT: ENABLED});
        assert!(selects(None, &namespace("x", json!({}))));
        assert!(selects(Some(&selector), &namespace("shop", both.clone())));
        assert!(!selects(Some(&selector), &namespace("kube-system", both)));
        assert!(!selects(Some(&selector), &namespace("shop", json!({"team": "a"}))));
        assert!(!selects(Some(&selector), &namespace("shop", json!({INJECT: ENABLED}))));
        assert!(!selects(
            Some(&selector),
            &namespace("shop", json!({"team": "a", INJECT: ENABLED, "off": ""}))
        ));
    }
}
