//! The webhook's installation: applied by server-side apply, waited for until it serves, and taken out again.

mod base;
pub mod health;
mod serving;

use devsync_protocol::contract::{AGENT_CONTAINER, FIELD_MANAGER, INJECTOR_NAMESPACE};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::discovery::ApiResource;
use serde_json::json;

use self::base::{Object, Wish, cluster_name, objects};
use super::add::{Say, Step};
use super::neighbour::is_local;
use super::obstacles::cluster as failure;
use super::{Cluster, explain};
use crate::error::CommandError;

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct InstallOptions {
    /// The namespace of the installation.
    pub namespace: Option<String>,
    pub image: Option<String>,
    pub agent_image: Option<String>,
    pub image_pull_secret: Option<String>,
    pub replicas: Option<u32>,
    pub only: Option<(String, String)>,
    /// Arguments for the injector itself.
    pub args: Vec<String>,
    pub dry_run: bool,
    pub yes: bool,
    pub allow_contexts: Vec<String>,
}

impl InstallOptions {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(INJECTOR_NAMESPACE)
    }

    async fn objects(&self, cluster: &Cluster) -> Result<Vec<Object>, CommandError> {
        let wish = Wish {
            namespace: self.namespace().to_owned(),
            image: self.image.clone(),
            agent_image: self.agent_image.clone(),
            pull_secret: self.image_pull_secret.clone(),
            replicas: self.replicas,
            only: self.only.clone(),
            args: self.args.clone(),
            policy_v1: has_policy_v1(cluster).await?,
        };
        objects(&wish).map_err(CommandError::of)
    }
}

/// Applies the installation and waits until API servers reach it.
pub async fn install(
    cluster: &Cluster,
    opts: &InstallOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let all = opts.objects(cluster).await?;
    let namespace = opts.namespace();
    say(Step::Plan(format!(
        "installs devsync-injector into namespace {namespace} of context {}: {} objects; pods of namespaces with the \
         label devsync.dev/inject=enabled{} get an agent from then on",
        cluster.context_name(),
        all.len(),
        opts.only.as_ref().map(|(key, value)| format!(" and {key}={value}")).unwrap_or_default(),
    )));
    may(cluster, &all, "patch").await?;
    if opts.dry_run {
        return tried(cluster, &all, namespace, say).await;
    }
    check_context(cluster, opts, "installing a webhook").await?;
    let (webhook, rest): (Vec<_>, Vec<_>) =
        all.iter().partition(|object| object.is("MutatingWebhookConfiguration"));
    for object in rest {
        applied(cluster, object, false, say).await?;
    }
    serving::replicas(cluster, namespace, say).await?;
    for object in webhook {
        applied(cluster, object, false, say).await?;
    }
    serving::answers(cluster, namespace, &cluster_name(namespace), say).await?;
    say(Step::Done("devsync-injector is ready and serves".to_owned()));
    Ok(())
}

/// Has the server check each object without keeping it; what lies in a namespace that is not there yet cannot be.
async fn tried(
    cluster: &Cluster,
    all: &[Object],
    namespace: &str,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let doing = format!("namespace {namespace} cannot be read");
    let exists = cluster.ask(&doing, namespaces.get_opt(namespace)).await?.is_some();
    for object in all {
        if object.namespace.is_none() || exists {
            applied(cluster, object, true, say).await?;
        } else {
            say(Step::Progress(format!("{} would be created", object.title())));
        }
    }
    say(Step::Done("nothing was changed".to_owned()));
    Ok(())
}

async fn applied(
    cluster: &Cluster,
    object: &Object,
    dry_run: bool,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let api = api(cluster, object);
    let title = object.title();
    let before = cluster.ask(&format!("{title} cannot be read"), api.get_opt(&object.name)).await?;
    let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER) };
    let patch = Patch::Apply(&object.value);
    let patched = tokio::time::timeout(super::ANSWER_WITHIN, api.patch(&object.name, &params, &patch));
    let after = match patched.await {
        Ok(Ok(after)) => after,
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            return Err(failure(format!("{title} belongs to another tool"))
                .cause(status.message.clone())
                .hint("install and change it with that tool (kubectl apply -k, helm upgrade), or uninstall it first"));
        }
        Ok(Err(error)) => return Err(cluster.explain(error, &format!("{title} cannot be applied"))),
        Err(_) => {
            return Err(failure(format!("{title} cannot be applied")).cause("the API server did not answer"));
        }
    };
    let words = match before {
        None => "created",
        Some(before) if before.metadata.resource_version == after.metadata.resource_version => "unchanged",
        Some(_) => "changed",
    };
    say(Step::Progress(format!("{title} {}{words}", if dry_run { "would be " } else { "" })));
    Ok(())
}

/// Takes the installation out, and says what stays.
pub async fn uninstall(
    cluster: &Cluster,
    opts: &InstallOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let mut all = opts.objects(cluster).await?;
    // The webhook first: no pod is to wait for one that has ended.
    all.reverse();
    may(cluster, &all, "delete").await?;
    say(Step::Plan(format!(
        "removes devsync-injector and namespace {} from context {}",
        opts.namespace(),
        cluster.context_name()
    )));
    if !opts.dry_run {
        check_context(cluster, opts, "removing the webhook").await?;
    }
    for object in &all {
        removed(cluster, object, opts, say).await?;
    }
    if !opts.dry_run {
        say(Step::Done("devsync-injector is removed".to_owned()));
    }
    remains(cluster, say).await;
    Ok(())
}

async fn removed(
    cluster: &Cluster,
    object: &Object,
    opts: &InstallOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let (api, title) = (api(cluster, object), object.title());
    let Some(there) = cluster.ask(&format!("{title} cannot be read"), api.get_opt(&object.name)).await?
    else {
        return Ok(());
    };
    let labels = there.metadata.labels.unwrap_or_default();
    if labels.get("app.kubernetes.io/part-of").is_none_or(|part| part != "devsync") {
        say(Step::Note { text: format!("{title} stays: it is not devsync's"), hint: None });
        return Ok(());
    }
    if object.is("Namespace") {
        let others = others(cluster, &object.name).await?;
        if !others.is_empty() {
            let text = format!("{title} stays: {} there is not devsync's", others.join(", "));
            say(Step::Note { text, hint: None });
            return Ok(());
        }
    }
    let params = DeleteParams { dry_run: opts.dry_run, ..DeleteParams::background() };
    match tokio::time::timeout(super::ANSWER_WITHIN, api.delete(&object.name, &params)).await {
        Ok(Ok(_)) => {}
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
        Ok(Err(error)) => return Err(cluster.explain(error, &format!("{title} cannot be deleted"))),
        Err(_) => {
            return Err(failure(format!("{title} cannot be deleted")).cause("the API server did not answer"));
        }
    }
    say(Step::Progress(format!("{title} {}", if opts.dry_run { "would be deleted" } else { "deleted" })));
    Ok(())
}

/// What lies in the namespace and does not come from devsync or from the cluster itself.
async fn others(cluster: &Cluster, namespace: &str) -> Result<Vec<String>, CommandError> {
    async fn names<K>(cluster: &Cluster, namespace: &str, kind: &str) -> Result<Vec<String>, CommandError>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(cluster.client.clone(), namespace);
        // The injector's pods may still be ending.
        let params = ListParams::default().labels("app.kubernetes.io/part-of!=devsync").limit(20);
        let listed =
            cluster.ask(&format!("{kind}s of {namespace} cannot be listed"), api.list(&params)).await?;
        let names = listed.items.into_iter().filter_map(|item| item.meta().name.clone());
        let own = |name: &str| {
            name == "kube-root-ca.crt"
                || name.starts_with("default-token-")
                || name.starts_with("devsync-injector-token-")
                || name == "openshift-service-ca.crt"
        };
        Ok(names.filter(|name| !own(name)).map(|name| format!("{kind}/{name}")).collect())
    }
    let mut all = names::<Pod>(cluster, namespace, "pod").await?;
    all.extend(names::<Service>(cluster, namespace, "service").await?);
    all.extend(names::<ConfigMap>(cluster, namespace, "configmap").await?);
    all.extend(names::<Secret>(cluster, namespace, "secret").await?);
    Ok(all)
}

/// Pods keep what they were made with.
async fn remains(cluster: &Cluster, say: &mut Say<'_>) {
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let params = ListParams::default().limit(2000);
    let Ok(Ok(listed)) = tokio::time::timeout(super::ANSWER_WITHIN, pods.list(&params)).await else { return };
    let has_agent = |pod: &&Pod| {
        let spec = pod.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        containers.into_iter().flatten().any(|container| container.name == AGENT_CONTAINER)
    };
    let mut namespaces: std::collections::BTreeMap<String, usize> = Default::default();
    for pod in listed.items.iter().filter(has_agent) {
        *namespaces.entry(pod.metadata.namespace.clone().unwrap_or_default()).or_default() += 1;
    }
    if namespaces.is_empty() {
        return;
    }
    let count: usize = namespaces.values().sum();
    let names: Vec<String> = namespaces.keys().take(5).cloned().collect();
    say(Step::Note {
        text: format!("{count} pods in {} keep their agent until they are replaced", names.join(", ")),
        hint: Some(format!(
            "kubectl rollout restart deployments -n {}{}",
            names.first().cloned().unwrap_or_default(),
            cluster.context_flag()
        )),
    });
}

/// A webhook is everybody's: on a cluster that is not this machine's, it is asked first.
async fn check_context(cluster: &Cluster, opts: &InstallOptions, doing: &str) -> Result<(), CommandError> {
    let context = &cluster.context;
    let allowed = opts.allow_contexts.iter().any(|allowed| allowed == context);
    if opts.yes || allowed || is_local(context, &cluster.server) {
        return Ok(());
    }
    let what = format!(
        "context {} is no cluster of this machine, and {doing} changes all of it",
        cluster.context_name()
    );
    let hint = "if it is meant: --yes; --dry-run shows what would be done";
    crate::ask::confirmed(&what, ("context", context), hint).await
}

/// Asks beforehand for every right that is needed, so that half an installation is rare and all that is missing is
/// named at once.
async fn may(cluster: &Cluster, all: &[Object], verb: &str) -> Result<(), CommandError> {
    let mut rules: Vec<String> = Vec::new();
    for object in all {
        let ApiResource { group, plural, .. } = &object.resource;
        let verbs: &[&str] = if verb == "patch" { &["get", "patch", "create"] } else { &["get", "delete"] };
        for verb in verbs {
            if !allowed(cluster, object, verb).await? {
                rules.push(format!(
                    "- {{apiGroups: [\"{group}\"], resources: [\"{plural}\"], verbs: [\"{verb}\"]}}"
                ));
            }
        }
    }
    rules.dedup();
    if rules.is_empty() {
        return Ok(());
    }
    let what = format!("your user of context {} lacks rights for this", cluster.context_name());
    Err(failure(what)
        .cause(format!("{} rights are missing in the cluster", rules.len()))
        .hint(format!("a cluster's administrator does this once; it takes\n{}", rules.join("\n"))))
}

async fn allowed(cluster: &Cluster, object: &Object, verb: &str) -> Result<bool, CommandError> {
    let review = json!({"spec": {"resourceAttributes": {
        "verb": verb, "group": object.resource.group, "resource": object.resource.plural,
        "namespace": object.namespace.clone().unwrap_or_default(), "name": object.name}}});
    let doing = "your rights cannot be asked for";
    let review: SelfSubjectAccessReview =
        serde_json::from_value(review).map_err(|error| failure(doing).cause(error))?;
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = cluster.ask(doing, api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn has_policy_v1(cluster: &Cluster) -> Result<bool, CommandError> {
    let groups = cluster.ask("the API's versions cannot be read", cluster.client.list_api_groups()).await?;
    let policy = groups.groups.iter().find(|group| group.name == "policy");
    Ok(policy.is_none_or(|group| group.versions.iter().any(|version| version.version == "v1")))
}

fn api(cluster: &Cluster, object: &Object) -> Api<DynamicObject> {
    match &object.namespace {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &object.resource),
        None => Api::all_with(cluster.client.clone(), &object.resource),
    }
}

/// A request that must be answered, else nothing is known.
async fn quietly<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(super::ANSWER_WITHIN, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(error)) => Err(explain::chain(&error)),
        Err(_) => Err("the API server did not answer".to_owned()),
    }
}
