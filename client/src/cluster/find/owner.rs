//! Which pods belong to a workload: as its controller knows them, and of the newest revision alone.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::{ObjectMeta, Selector};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::MOST_PODS;
use crate::cli::WorkloadKind;
use crate::cluster::target::{WorkloadRef, did_you_mean};
use crate::cluster::{ANSWER_WITHIN, Cluster};
use crate::error::{CommandError, Kind};

/// The Deployment controller numbers its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The controllers of StatefulSets and DaemonSets mark the pods of each revision.
pub(super) const REVISION_HASH: &str = "controller-revision-hash";

#[derive(Clone)]
pub(super) enum Choice {
    Labels(String),
    Name(String),
}

/// Which pods belong to a workload.
pub(super) struct Owner {
    pub(super) choice: Choice,
    /// The uid of the controller that its pods name.
    pub(super) owner: Option<String>,
    /// Of the pods only those of this revision.
    pub(super) revision: Option<String>,
    pub(super) not_yet: Option<String>,
    /// Why there are no pods, as the controller says it.
    pub(super) trouble: Option<String>,
}

impl Owner {
    fn labels(labels: String) -> Self {
        Self { choice: Choice::Labels(labels), owner: None, revision: None, not_yet: None, trouble: None }
    }

    pub(super) async fn read(cluster: &Cluster, workload: &WorkloadRef) -> Result<Self, CommandError> {
        let (kind, name) = match workload {
            WorkloadRef::Selector(labels) => return Ok(Self::labels(labels.clone())),
            WorkloadRef::Named { kind, name } => (*kind, name.as_str()),
        };
        match kind {
            WorkloadKind::Deployment => deployment(cluster, workload, name).await,
            WorkloadKind::StatefulSet => stateful_set(cluster, workload, name).await,
            WorkloadKind::DaemonSet => daemon_set(cluster, workload, name).await,
            WorkloadKind::ReplicaSet => {
                let set: ReplicaSet = get(cluster, workload, name).await?;
                let spec = set.spec.unwrap_or_default();
                scaled(cluster, workload, spec.replicas)?;
                let conditions = set.status.and_then(|status| status.conditions).unwrap_or_default();
                let failure = conditions.into_iter().find(|c| c.type_ == "ReplicaFailure");
                let trouble = failure.and_then(|c| c.message);
                Ok(Self { owner: set.metadata.uid, trouble, ..Self::labels(selector(Some(&spec.selector))) })
            }
            WorkloadKind::Job => job(cluster, workload, name).await,
            WorkloadKind::Pod => {
                let _: Pod = get(cluster, workload, name).await?;
                Ok(Self { choice: Choice::Name(name.to_owned()), ..Self::labels(String::new()) })
            }
            WorkloadKind::Service => {
                let service: Service = get(cluster, workload, name).await?;
                match service.spec.and_then(|spec| spec.selector).filter(|labels| !labels.is_empty()) {
                    Some(labels) => Ok(Self::labels(equal(&labels))),
                    None => Err(CommandError::new(format!("{workload} has no selector, so it has no pods"))
                        .kind(Kind::Cluster)
                        .hint("name the workload itself: deploy/NAME")),
                }
            }
        }
    }
}

async fn deployment(cluster: &Cluster, workload: &WorkloadRef, name: &str) -> Result<Owner, CommandError> {
    let deployment: Deployment = get(cluster, workload, name).await?;
    let generation = deployment.metadata.generation;
    let uid = deployment.metadata.uid.unwrap_or_default();
    let spec = deployment.spec.unwrap_or_default();
    let status = deployment.status.unwrap_or_default();
    scaled(cluster, workload, spec.replicas)?;
    let labels = selector(Some(&spec.selector));
    let mut owner = Owner::labels(labels.clone());
    if status.observed_generation < generation {
        owner.not_yet = Some(format!("the rollout of {workload} begins"));
        return Ok(owner);
    }
    let conditions = status.conditions.unwrap_or_default();
    let failing = |c: &&k8s_openapi::api::apps::v1::DeploymentCondition| {
        c.type_ == "ReplicaFailure" || (c.type_ == "Progressing" && c.status == "False")
    };
    owner.trouble = conditions.iter().find(failing).and_then(|c| c.message.clone());
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let doing = format!("the ReplicaSets of {workload} cannot be listed");
    let sets =
        cluster.ask(&doing, sets.list(&ListParams::default().labels(&labels).limit(MOST_PODS))).await?;
    match newest_set(sets.items, &uid) {
        Some(newest) => owner.owner = Some(newest),
        None => owner.not_yet = Some(format!("{workload} has no ReplicaSet yet")),
    }
    Ok(owner)
}

/// The uid of the Deployment's newest ReplicaSet.
fn newest_set(sets: Vec<ReplicaSet>, deployment: &str) -> Option<String> {
    let ours = sets.into_iter().filter(|set| set.owner_references().iter().any(|o| o.uid == deployment));
    let revision =
        |set: &ReplicaSet| set.annotations().get(REVISION).and_then(|r| r.parse::<u64>().ok()).unwrap_or(0);
    ours.max_by_key(|set| (revision(set), set.creation_timestamp())).and_then(|set| set.metadata.uid)
}

async fn stateful_set(cluster: &Cluster, workload: &WorkloadRef, name: &str) -> Result<Owner, CommandError> {
    let set: StatefulSet = get(cluster, workload, name).await?;
    let generation = set.metadata.generation;
    let spec = set.spec.unwrap_or_default();
    let status = set.status.unwrap_or_default();
    scaled(cluster, workload, spec.replicas)?;
    let mut owner = Owner { owner: set.metadata.uid, ..Owner::labels(selector(Some(&spec.selector))) };
    if status.observed_generation < generation {
        owner.not_yet = Some(format!("the rollout of {workload} begins"));
    }
    // With OnDelete, or a partition, old pods are meant to stay.
    let strategy = spec.update_strategy.unwrap_or_default();
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
    if strategy.type_.as_deref() != Some("OnDelete") && partition == 0 {
        owner.revision = status.update_revision;
    }
    Ok(owner)
}

async fn daemon_set(cluster: &Cluster, workload: &WorkloadRef, name: &str) -> Result<Owner, CommandError> {
    let set: DaemonSet = get(cluster, workload, name).await?;
    let generation = set.metadata.generation;
    let spec = set.spec.unwrap_or_default();
    let mut owner = Owner { owner: set.metadata.uid, ..Owner::labels(selector(Some(&spec.selector))) };
    if set.status.and_then(|status| status.observed_generation) < generation {
        owner.not_yet = Some(format!("the rollout of {workload} begins"));
        return Ok(owner);
    }
    if spec.update_strategy.and_then(|strategy| strategy.type_).as_deref() != Some("OnDelete") {
        let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let params = ListParams::default().limit(MOST_PODS);
        // Who may not list them gets the newest pod, of whatever revision.
        let listed = timeout(ANSWER_WITHIN, revisions.list(&params)).await;
        if let (Ok(Ok(listed)), Some(uid)) = (listed, &owner.owner) {
            owner.revision = newest_revision(listed.items, uid);
        }
    }
    Ok(owner)
}

/// The mark of the pods of a set's newest revision.
fn newest_revision(revisions: Vec<ControllerRevision>, set: &str) -> Option<String> {
    let ours = revisions.into_iter().filter(|r| r.owner_references().iter().any(|o| o.uid == set));
    let newest = ours.max_by_key(|revision| revision.revision)?;
    newest.labels().get(REVISION_HASH).cloned()
}

async fn job(cluster: &Cluster, workload: &WorkloadRef, name: &str) -> Result<Owner, CommandError> {
    let job: Job = get(cluster, workload, name).await?;
    let spec = job.spec.unwrap_or_default();
    let status = job.status.unwrap_or_default();
    let over = status.conditions.unwrap_or_default().into_iter();
    let over = over.filter(|c| c.status == "True").find(|c| c.type_ == "Complete" || c.type_ == "Failed");
    if let Some(over) = over {
        let how = if over.type_ == "Complete" { "it is complete" } else { "it has failed" };
        let cause = over.message.filter(|m| !m.is_empty()).unwrap_or_else(|| how.to_owned());
        return Err(CommandError::new(format!("{workload} has ended"))
            .kind(Kind::Cluster)
            .cause(cause)
            .hint("a Job that runs is needed: delete and apply it again, and attach while it runs"));
    }
    if spec.suspend == Some(true) {
        let patch = "'{\"spec\":{\"suspend\":false}}'";
        return Err(CommandError::new(format!("{workload} is suspended"))
            .kind(Kind::Cluster)
            .hint(format!("kubectl patch {workload} {} -p {patch}", cluster.flags)));
    }
    Ok(Owner { owner: job.metadata.uid, ..Owner::labels(selector(spec.selector.as_ref())) })
}

fn scaled(cluster: &Cluster, workload: &WorkloadRef, replicas: Option<i32>) -> Result<(), CommandError> {
    if replicas != Some(0) {
        return Ok(());
    }
    Err(CommandError::new(format!("{workload} is scaled to zero replicas, so it has no pods"))
        .kind(Kind::Cluster)
        .hint(format!("kubectl scale {workload} --replicas=1 {}", cluster.flags)))
}

async fn get<K>(cluster: &Cluster, workload: &WorkloadRef, name: &str) -> Result<K, CommandError>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let doing = format!("{workload} cannot be read");
    match cluster.ask(&doing, async { api.get_opt(name).await }).await? {
        Some(object) => Ok(object),
        None => Err(not_there(cluster, workload, name, &api).await),
    }
}

/// Says what is there instead.
async fn not_there<K>(cluster: &Cluster, workload: &WorkloadRef, name: &str, api: &Api<K>) -> CommandError
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let error = CommandError::new(format!("there is no {workload} in namespace {}", cluster.namespace))
        .kind(Kind::Cluster);
    let elsewhere = format!(
        "-n names another namespace, --context another cluster; kubectl get deploy,sts,ds,jobs -A{} lists all",
        cluster.context_flag()
    );
    let params = ListParams::default().limit(MOST_PODS);
    let list = api.list_metadata(&params);
    let Ok(Ok(list)) = timeout(ANSWER_WITHIN, list).await else { return error.hint(elsewhere) };
    let metadata: Vec<ObjectMeta> = list.items.into_iter().map(|item| item.metadata).collect();
    let names: Vec<&str> = metadata.iter().filter_map(|m| m.name.as_deref()).collect();
    let kind = match workload {
        WorkloadRef::Named { kind, .. } => kind.plural(),
        WorkloadRef::Selector(_) => "pods",
    };
    let cause = match names.as_slice() {
        [] => format!("it has no {kind}"),
        names if names.len() > 10 => {
            format!("it has {} {kind}, {} among them", names.len(), names[..10].join(", "))
        }
        names => format!("its {kind}: {}", names.join(", ")),
    };
    let before = match workload {
        WorkloadRef::Named { kind, .. } => format!("{kind}/"),
        WorkloadRef::Selector(_) => String::new(),
    };
    error.cause(cause).hint(did_you_mean(name, &names, &before).unwrap_or(elsewhere))
}

fn selector(labels: Option<&LabelSelector>) -> String {
    let selector = labels.cloned().unwrap_or_default();
    // A Deployment without a usable selector is none that an API server takes.
    Selector::try_from(selector).map(|selector| selector.to_string()).unwrap_or_default()
}

fn equal(labels: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(",")
}
