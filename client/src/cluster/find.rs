//! From a workload's name to its pods: the newest ready one first. A rollout in progress is waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ObjectMeta, Selector};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::state::{self, Verdict};
use super::target::{PodTarget, WorkloadRef, did_you_mean};
use super::{Cluster, explain};
use crate::cli::WorkloadKind;
use crate::error::{CommandError, Kind};

/// Longest wait for a rollout, as long as a Deployment gives it by default.
const ROLLOUT: Duration = Duration::from_secs(600);
/// Even without an event everything is read again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Without the right to watch.
const WITHOUT_WATCH: Duration = Duration::from_secs(2);
/// More pods of one workload than this are not looked at.
const MOST_PODS: u32 = 500;
/// The Deployment controller numbers its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The controllers of StatefulSets and DaemonSets mark the pods of each revision.
const REVISION_HASH: &str = "controller-revision-hash";

/// The pods of a workload that can be attached to, newest ready first; waits until there is one.
pub async fn find(
    cluster: &Cluster,
    workload: &WorkloadRef,
    container: Option<&str>,
) -> Result<Vec<PodTarget>, CommandError> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let (pods, version) = read(cluster, workload).await?;
        let why = match pods {
            Pods::NotYet(why) => why,
            Pods::Are(pods) => match state::judge(workload, &pods, container, began.elapsed())? {
                Verdict::Found(found) => return Ok(found),
                Verdict::Broken(broken) => {
                    return Err(state::explain_broken(cluster, workload, *broken).await);
                }
                Verdict::Wait(why) => why,
            },
        };
        if began.elapsed() > ROLLOUT {
            return Err(CommandError::new(format!("{workload} has no pod that is ready"))
                .kind(Kind::Cluster)
                .cause(format!("{why}, for {} s", ROLLOUT.as_secs()))
                .hint(format!("kubectl get pods {}", cluster.flags)));
        }
        if said != why {
            (cluster.progress)(&format!("waiting: {why}"));
            said = why;
        }
        next_change(cluster, workload, &version).await;
    }
}

/// The pods of a workload that can be attached to right now, newest ready first; empty where none can.
pub async fn candidates(
    cluster: &Cluster,
    workload: &WorkloadRef,
    container: Option<&str>,
) -> Result<Vec<PodTarget>, CommandError> {
    match read(cluster, workload).await?.0 {
        Pods::NotYet(_) => Ok(Vec::new()),
        Pods::Are(pods) => state::attachable(&pods, container),
    }
}

/// A workload's pods at one moment.
pub struct Seen {
    /// Those that can be attached to, newest ready first.
    pub attachable: Vec<PodTarget>,
    /// The names of all that are not on their way out.
    pub names: Vec<String>,
    /// From where [`next_change`] goes on.
    pub version: Version,
}

/// The pods of a workload as they are now.
pub async fn look(
    cluster: &Cluster,
    workload: &WorkloadRef,
    container: Option<&str>,
) -> Result<Seen, CommandError> {
    let (pods, version) = all(cluster, workload).await?;
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let names = pods.iter().filter(stays).map(ResourceExt::name_any).collect();
    Ok(Seen { attachable: state::attachable(&pods, container)?, names, version })
}

/// All pods of a workload, in whatever state.
pub(super) async fn all(
    cluster: &Cluster,
    workload: &WorkloadRef,
) -> Result<(Vec<Pod>, Version), CommandError> {
    match read(cluster, workload).await? {
        (Pods::Are(pods), version) => Ok((pods, version)),
        (Pods::NotYet(_), version) => Ok((Vec::new(), version)),
    }
}

enum Pods {
    Are(Vec<Pod>),
    /// The controller has not made them yet.
    NotYet(String),
}

/// A workload's pods, and the version of the list that a watch goes on from.
async fn read(cluster: &Cluster, workload: &WorkloadRef) -> Result<(Pods, Version), CommandError> {
    let of = Owner::read(cluster, workload).await?;
    let doing = format!("the pods of {workload} cannot be listed");
    let params = match &of.choice {
        Choice::Labels(labels) => ListParams::default().labels(labels),
        Choice::Name(name) => ListParams::default().fields(&format!("metadata.name={name}")),
    };
    let list = cluster.ask(&doing, cluster.pods().list(&params.limit(MOST_PODS))).await?;
    let version =
        Version { choice: of.choice.clone(), at: list.metadata.resource_version.unwrap_or_default() };
    if let Some(why) = of.not_yet {
        return Ok((Pods::NotYet(why), version));
    }
    let mut pods = list.items;
    if let Some(uid) = &of.owner {
        pods.retain(|pod| pod.owner_references().iter().any(|owner| owner.uid == *uid));
    }
    if let Some(revision) = &of.revision {
        pods.retain(|pod| pod.labels().get(REVISION_HASH) == Some(revision));
    }
    if pods.is_empty()
        && let Some(trouble) = of.trouble
    {
        return Err(CommandError::new(format!("{workload} has no pods"))
            .kind(Kind::Cluster)
            .cause(trouble)
            .hint(format!("kubectl describe {workload} {}", cluster.flags)));
    }
    Ok((Pods::Are(pods), version))
}

/// From where a watch goes on.
pub struct Version {
    choice: Choice,
    at: String,
}

impl Default for Version {
    fn default() -> Self {
        Self { choice: Choice::Labels(String::new()), at: "0".to_owned() }
    }
}

/// Waits for the next event of the pods.
pub async fn next_change(cluster: &Cluster, workload: &WorkloadRef, version: &Version) {
    let params = match &version.choice {
        Choice::Labels(labels) => WatchParams::default().labels(labels),
        Choice::Name(name) => WatchParams::default().fields(&format!("metadata.name={name}")),
    };
    let pods = cluster.pods();
    let event = async {
        let events = pods.watch(&params, &version.at).await?;
        let mut events = events.boxed();
        loop {
            match events.try_next().await? {
                Some(WatchEvent::Bookmark(_)) => {}
                Some(WatchEvent::Error(_)) | None => {
                    // The version is too old, or the server lets nobody watch: not again at once.
                    sleep(WITHOUT_WATCH).await;
                    return Ok(());
                }
                Some(_) => return Ok::<(), kube::Error>(()),
            }
        }
    };
    match timeout(LOOK_AGAIN, event).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => {
            tracing::debug!(%workload, "no watch: {}", explain::chain(&error));
            sleep(WITHOUT_WATCH).await;
        }
    }
}

#[derive(Clone)]
enum Choice {
    Labels(String),
    Name(String),
}

/// Which pods belong to a workload.
struct Owner {
    choice: Choice,
    /// The uid of the controller that its pods name.
    owner: Option<String>,
    /// Of the pods only those of this revision.
    revision: Option<String>,
    not_yet: Option<String>,
    /// Why there are no pods, as the controller says it.
    trouble: Option<String>,
}

impl Owner {
    fn labels(labels: String) -> Self {
        Self { choice: Choice::Labels(labels), owner: None, revision: None, not_yet: None, trouble: None }
    }

    async fn read(cluster: &Cluster, workload: &WorkloadRef) -> Result<Self, CommandError> {
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
        let listed = timeout(super::ANSWER_WITHIN, revisions.list(&params)).await;
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
    let Ok(Ok(list)) = timeout(super::ANSWER_WITHIN, list).await else { return error.hint(elsewhere) };
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
