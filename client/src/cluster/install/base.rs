//! The manifests that this program carries, as the objects of one installation.

use devsync_protocol::contract::{INJECTOR, INJECTOR_CONFIG_KEY, INJECTOR_NAMESPACE};
use kube::core::ApiResource;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// In the order in which they are applied; the webhook is called last, when somebody answers.
const FILES: [(&str, &str); 12] = [
    ("namespace", include_str!("../../../../manifests/base/namespace.yaml")),
    ("service-account", include_str!("../../../../manifests/base/service-account.yaml")),
    ("role", include_str!("../../../../manifests/base/role.yaml")),
    ("cluster-role", include_str!("../../../../manifests/base/cluster-role.yaml")),
    ("config-map", include_str!("../../../../manifests/base/config-map.yaml")),
    ("certificates", include_str!("../../../../manifests/base/certificates.yaml")),
    ("lease", include_str!("../../../../manifests/base/lease.yaml")),
    ("service", include_str!("../../../../manifests/base/service.yaml")),
    ("disruption-budget", include_str!("../../../../manifests/base/disruption-budget.yaml")),
    ("network-policy", include_str!("../../../../manifests/base/network-policy.yaml")),
    ("deployment", include_str!("../../../../manifests/base/deployment.yaml")),
    ("webhook", include_str!("../../../../manifests/base/webhook.yaml")),
];

/// The kinds in those files: what the API calls their collection.
const KINDS: [(&str, &str); 13] = [
    ("Namespace", "namespaces"),
    ("ServiceAccount", "serviceaccounts"),
    ("Role", "roles"),
    ("RoleBinding", "rolebindings"),
    ("ClusterRole", "clusterroles"),
    ("ClusterRoleBinding", "clusterrolebindings"),
    ("ConfigMap", "configmaps"),
    ("Secret", "secrets"),
    ("Lease", "leases"),
    ("Service", "services"),
    ("PodDisruptionBudget", "poddisruptionbudgets"),
    ("NetworkPolicy", "networkpolicies"),
    ("Deployment", "deployments"),
];
const WEBHOOK_KIND: &str = "MutatingWebhookConfiguration";

/// A fault of this program's own files.
#[derive(Debug, Error)]
pub(super) enum BaseError {
    #[error("the embedded manifest {file} cannot be read: {why}")]
    Broken { file: &'static str, why: String },
    #[error("the embedded manifest {file} has a {kind:?}, which is not known")]
    Kind { file: &'static str, kind: String },
}

/// What is asked of an installation.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) namespace: String,
    pub(super) image: Option<String>,
    pub(super) agent_image: Option<String>,
    pub(super) pull_secret: Option<String>,
    pub(super) replicas: Option<u32>,
    /// A label that namespaces must have beside `devsync.dev/inject`.
    pub(super) only: Option<(String, String)>,
    /// Arguments of the injector beside those of the manifest.
    pub(super) args: Vec<String>,
    /// The server has policy/v1 (1.21 and later).
    pub(super) policy_v1: bool,
}

/// One object, and where the API has its kind.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) resource: ApiResource,
    pub(super) name: String,
    /// `None` for what belongs to the whole cluster.
    pub(super) namespace: Option<String>,
    pub(super) value: Value,
}

impl Object {
    /// `deployment/devsync-injector`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.resource.kind.to_lowercase(), self.name)
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.resource.kind == kind
    }
}

/// The name of what belongs to the whole cluster: one for each installation.
pub(super) fn cluster_name(namespace: &str) -> String {
    if namespace == INJECTOR_NAMESPACE { INJECTOR.to_owned() } else { format!("{INJECTOR}-{namespace}") }
}

/// The objects, in the order in which they are applied.
pub(super) fn objects(wish: &Wish) -> Result<Vec<Object>, BaseError> {
    let mut all = Vec::new();
    for (file, text) in FILES {
        let documents = serde_saphyr::from_multiple::<Value>(text)
            .map_err(|error| BaseError::Broken { file, why: error.to_string() })?;
        for mut value in documents {
            place(&mut value, wish);
            adapt(&mut value, wish);
            all.push(object(file, value)?);
        }
    }
    Ok(all)
}

fn object(file: &'static str, value: Value) -> Result<Object, BaseError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&value["kind"]);
    let plural = match KINDS.iter().find(|(known, _)| *known == kind) {
        Some((_, plural)) => *plural,
        None if kind == WEBHOOK_KIND => "mutatingwebhookconfigurations",
        None => return Err(BaseError::Kind { file, kind }),
    };
    let api_version = text(&value["apiVersion"]);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.clone(),
        kind,
        plural: plural.to_owned(),
    };
    let namespace = value["metadata"]["namespace"].as_str().map(str::to_owned);
    Ok(Object { resource, name: text(&value["metadata"]["name"]), namespace, value })
}

/// Moves an object to the installation's namespace, and gives what is the whole cluster's its name.
fn place(value: &mut Value, wish: &Wish) {
    rename(value, INJECTOR_NAMESPACE, &wish.namespace);
    let name = cluster_name(&wish.namespace);
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    match kind.as_str() {
        "ClusterRole" => {
            value["metadata"]["name"] = json!(name);
            for rule in value["rules"].as_array_mut().into_iter().flatten() {
                if !rule["resourceNames"].is_null() {
                    rename(&mut rule["resourceNames"], INJECTOR, &name);
                }
            }
        }
        "ClusterRoleBinding" => {
            value["metadata"]["name"] = json!(name);
            value["roleRef"]["name"] = json!(name);
        }
        WEBHOOK_KIND => value["metadata"]["name"] = json!(name),
        "Deployment" => {
            let (from, to) = (format!("--webhook={INJECTOR}"), format!("--webhook={name}"));
            rename(&mut value["spec"]["template"]["spec"]["containers"][0]["args"], &from, &to);
        }
        _ => {}
    }
}

/// Replaces each text that is `from` and nothing else.
fn rename(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text == from => *text = to.to_owned(),
        Value::Array(list) => list.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Object(map) => map.values_mut().for_each(|item| rename(item, from, to)),
        _ => {}
    }
}

fn adapt(value: &mut Value, wish: &Wish) {
    match value["kind"].as_str().unwrap_or_default() {
        "PodDisruptionBudget" if !wish.policy_v1 => value["apiVersion"] = json!("policy/v1beta1"),
        "Deployment" => deployment(&mut value["spec"], wish),
        "ConfigMap" => configuration(&mut value["data"][INJECTOR_CONFIG_KEY], wish),
        WEBHOOK_KIND => {
            if let Some((key, label)) = &wish.only {
                let more = json!({"key": key, "operator": "In", "values": [label]});
                for webhook in value["webhooks"].as_array_mut().into_iter().flatten() {
                    let all = webhook["namespaceSelector"]["matchExpressions"].as_array_mut();
                    all.into_iter().for_each(|all| all.push(more.clone()));
                }
            }
        }
        _ => {}
    }
}

fn deployment(spec: &mut Value, wish: &Wish) {
    if let Some(replicas) = wish.replicas {
        spec["replicas"] = json!(replicas);
    }
    let pod = &mut spec["template"]["spec"];
    if let Some(secret) = &wish.pull_secret {
        pod["imagePullSecrets"] = json!([{"name": secret}]);
    }
    let container = &mut pod["containers"][0];
    if let Some(image) = &wish.image {
        container["image"] = json!(image);
    }
    if let Some(args) = container["args"].as_array_mut() {
        args.extend(wish.args.iter().map(|arg| json!(arg)));
    }
}

/// The injector's own configuration, as the manifest has it and with what is asked for.
fn configuration(text: &mut Value, wish: &Wish) {
    let Some(image) = &wish.agent_image else { return };
    let mut config = Map::new();
    config.insert("agentImage".to_owned(), json!(image));
    // JSON is YAML.
    *text = json!(format!("{}\n", serde_json::to_string(&config).unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use devsync_protocol::contract::{
        AGENT_IMAGE, ENABLED, INJECT, INJECTOR_IMAGE, INJECTOR_PORT, INJECTOR_TLS, INJECTOR_WEBHOOK,
        MUTATE_PATH,
    };

    use super::*;

    fn wish(namespace: &str) -> Wish {
        Wish {
            namespace: namespace.to_owned(),
            image: None,
            agent_image: None,
            pull_secret: None,
            replicas: None,
            only: None,
            args: Vec::new(),
            policy_v1: true,
        }
    }

    fn of(wish: &Wish, kind: &str) -> Object {
        let all = objects(wish).expect("the manifests are sound");
        all.into_iter().find(|object| object.is(kind)).unwrap_or_else(|| panic!("no {kind}"))
    }

    #[test]
    fn the_manifests_have_the_names_of_the_contract() {
        let wish = wish(INJECTOR_NAMESPACE);
        let all = objects(&wish).expect("the manifests are sound");
        assert!(all.iter().all(|o| o.namespace.as_deref().is_none_or(|n| n == INJECTOR_NAMESPACE)));
        assert_eq!(of(&wish, "Namespace").name, INJECTOR_NAMESPACE);
        assert_eq!(of(&wish, "Secret").name, INJECTOR_TLS);
        for kind in ["Deployment", "Service", "ConfigMap", "Lease", "Role", "ClusterRole", WEBHOOK_KIND] {
            assert_eq!(of(&wish, kind).name, INJECTOR, "{kind}");
        }
        let webhook = &of(&wish, WEBHOOK_KIND).value["webhooks"][0];
        assert_eq!(webhook["name"], INJECTOR_WEBHOOK);
        assert_eq!(webhook["clientConfig"]["service"]["path"], MUTATE_PATH);
        let first = &webhook["namespaceSelector"]["matchExpressions"][0];
        assert_eq!((&first["key"], &first["values"]), (&json!(INJECT), &json!([ENABLED])));
        let container = &of(&wish, "Deployment").value["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], INJECTOR_IMAGE);
        assert_eq!(container["ports"][0]["containerPort"], INJECTOR_PORT);
        let config = &of(&wish, "ConfigMap").value["data"][INJECTOR_CONFIG_KEY];
        assert_eq!(config, &format!("agentImage: {AGENT_IMAGE}\n"));
    }

    #[test]
    fn another_namespace_is_another_installation() {
        let mut wish = wish("team-a");
        wish.only = Some(("team".to_owned(), "a".to_owned()));
        let all = objects(&wish).expect("the manifests are sound");
        assert!(!all.iter().any(|object| object.value.to_string().contains(INJECTOR_NAMESPACE)));
        let role = of(&wish, "ClusterRole");
        assert_eq!(role.name, "devsync-injector-team-a");
        assert_eq!(role.value["rules"][1]["resourceNames"], json!([role.name]));
        assert_eq!(of(&wish, "ClusterRoleBinding").value["roleRef"]["name"], role.name);
        let webhook = of(&wish, WEBHOOK_KIND);
        assert_eq!(webhook.name, role.name);
        assert!(webhook.value.to_string().contains(r#"{"key":"team","operator":"In","values":["a"]}"#));
        let args = &of(&wish, "Deployment").value["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(args, &json!(["--webhook=devsync-injector-team-a"]));
        // What lies in its namespace keeps its name.
        assert_eq!(of(&wish, "RoleBinding").value["roleRef"]["name"], INJECTOR);
    }

    #[test]
    fn an_old_server_gets_the_budget_it_knows() {
        let old = Wish { policy_v1: false, ..wish(INJECTOR_NAMESPACE) };
        let budget = of(&old, "PodDisruptionBudget");
        assert_eq!(budget.resource.api_version, "policy/v1beta1");
        assert_eq!(budget.resource.version, "v1beta1");
    }
}
