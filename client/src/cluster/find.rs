//! From a workload's name to its pods: the newest ready one first. A rollout in progress is waited for.

mod owner;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::time::{Instant, sleep, timeout};

use self::owner::{Choice, Owner, REVISION_HASH};
use super::state::{self, Verdict};
use super::target::{PodTarget, WorkloadRef};
use super::{Cluster, explain};
use crate::error::{CommandError, Kind};

/// Longest wait for a rollout, as long as a Deployment gives it by default.
const ROLLOUT: Duration = Duration::from_secs(600);
/// Even without an event everything is read again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Without the right to watch.
const WITHOUT_WATCH: Duration = Duration::from_secs(2);
/// More pods of one workload than this are not looked at.
const MOST_PODS: u32 = 500;

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
