//! Waits for a workload's rollout, and says how far it is.

mod state;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, Preconditions, WatchParams};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::foreign::foreign;
use super::obstacles::{cluster as failure, complains_of_pid, word};
use super::workload::{Workload, api, selector, value};
use super::{Cluster, Say, Step};
use crate::cli::WorkloadKind;
use crate::error::CommandError;
use crate::report::plain_line;

pub(super) use state::{Failure, Progress, failure_of, progress};

/// A rollout in which nothing moves for so long is given up.
const STUCK_AFTER: Duration = Duration::from_secs(300);
/// The state is read anew at least this often: the watch only wakes.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A burst of events is one change.
const BURST: Duration = Duration::from_millis(50);
/// A controller that makes no pod for so long is asked for its reasons.
const NO_PODS_AFTER: Duration = Duration::from_secs(3);
/// Lines of a crashed container's log that are shown.
const LAST_LINES: i64 = 10;
const MOST_PODS: u32 = 500;

/// The pods of a workload, as a list shows them.
pub(super) async fn pods(cluster: &Cluster, workload: &Value) -> Result<(Vec<Value>, String), CommandError> {
    let labels = labels(workload);
    let params = ListParams::default().labels(&labels).limit(MOST_PODS);
    let listed = cluster.ask("pods cannot be listed", api(cluster, WorkloadKind::Pod).list(&params)).await?;
    let version = listed.metadata.resource_version.clone().unwrap_or_default();
    let owners = owners(cluster, workload, &params).await?;
    let mut pods: Vec<Value> = listed.items.iter().map(value).collect();
    // A selector may match pods of others, too.
    pods.retain(|pod| controller_uid(pod).is_some_and(|uid| owners.contains(uid)));
    Ok((pods, version))
}

/// The uids of what makes the pods: the workload itself, or a Deployment's ReplicaSets.
async fn owners(
    cluster: &Cluster,
    workload: &Value,
    params: &ListParams,
) -> Result<BTreeSet<String>, CommandError> {
    let uid = workload["metadata"]["uid"].as_str().unwrap_or_default();
    if workload["kind"] != "Deployment" {
        return Ok(BTreeSet::from([uid.to_owned()]));
    }
    let sets = api(cluster, WorkloadKind::ReplicaSet);
    let sets = cluster.ask("ReplicaSets cannot be listed", sets.list(params)).await?;
    let sets: Vec<Value> = sets.items.iter().map(value).collect();
    Ok(uids(sets.iter().filter(|set| controller_uid(set) == Some(uid))))
}

/// The uid of what controls an object.
fn controller_uid(object: &Value) -> Option<&str> {
    let mut owners = object["metadata"]["ownerReferences"].as_array()?.iter();
    owners.find(|owner| owner["controller"] == true)?["uid"].as_str()
}

/// Deletes exactly this object: not another that has its name by now.
pub(super) fn this_one(object: &Value) -> DeleteParams {
    let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
    DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    }
}

/// The uids of pods, to tell new ones from those that were there.
pub(super) fn uids<'a>(pods: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    pods.into_iter().filter_map(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned())).collect()
}

fn labels(workload: &Value) -> String {
    let of = &workload["spec"]["selector"];
    selector(&of["matchLabels"], &of["matchExpressions"])
}

/// Waits until the rollout is through; `Err(Err)` where the cluster cannot be asked.
pub(super) async fn wait(
    cluster: &Cluster,
    workload: &Workload,
    before: &BTreeSet<String>,
    say: &mut Say<'_>,
) -> Result<Result<(), Failure>, CommandError> {
    let mut said = String::new();
    let (started, mut moved) = (Instant::now(), Instant::now());
    loop {
        let object = workload.read(cluster).await?;
        let (pods, version) = pods(cluster, &object).await?;
        match progress(&object, &pods, before) {
            Progress::Done => return Ok(Ok(())),
            Progress::Failed(why) => return Ok(Err(why)),
            Progress::Going(text) if text != said => {
                say(Step::Progress(format!("{workload}: {text}")));
                said = text;
                moved = Instant::now();
            }
            Progress::Going(_) => {}
        }
        let none_new =
            pods.iter().all(|pod| pod["metadata"]["uid"].as_str().is_some_and(|u| before.contains(u)));
        if none_new
            && started.elapsed() > NO_PODS_AFTER
            && let Some(message) = refused_pods(cluster, &object).await
        {
            return Ok(Err(Failure::NoPods { message }));
        }
        if moved.elapsed() > STUCK_AFTER {
            let message = format!("nothing moved for {} s: {said}", STUCK_AFTER.as_secs());
            return Ok(Err(Failure::Deadline { message }));
        }
        change(cluster, &labels(&object), &version).await;
    }
}

/// Returns when a pod changed, or after [`LOOK_AGAIN`].
async fn change(cluster: &Cluster, labels: &str, version: &str) {
    let until = Instant::now() + LOOK_AGAIN;
    let pods: Api<DynamicObject> = api(cluster, WorkloadKind::Pod);
    let params = WatchParams::default().labels(labels).timeout(30);
    let watched = async {
        let Ok(stream) = pods.watch(&params, version).await else { return std::future::pending().await };
        match pin!(stream).next().await {
            Some(Ok(_)) => sleep(BURST).await,
            // A watch that is refused or ends is no wake-up.
            Some(Err(_)) | None => std::future::pending().await,
        }
    };
    let _ = tokio::time::timeout_at(until, watched).await;
}

/// What the controller says of pods that it could not make: in events, for kinds that have no condition for it.
async fn refused_pods(cluster: &Cluster, object: &Value) -> Option<String> {
    let uid = object["metadata"]["uid"].as_str()?;
    let changed =
        object["metadata"]["managedFields"].as_array()?.iter().filter_map(|e| e["time"].as_str()).max()?;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let fields = format!("involvedObject.uid={uid},reason=FailedCreate");
    let params = ListParams::default().fields(&fields).limit(MOST_PODS);
    let listed = timeout(super::ANSWER_WITHIN, events.list(&params)).await.ok()?.ok()?;
    let mut recent = listed.items.into_iter().rev().filter(|event| {
        let at = event.last_timestamp.as_ref().map(|t| t.0.to_string());
        // Both are RFC 3339 in UTC, to the second: text compares as time does.
        at.is_some_and(|at| at.get(..19) >= changed.get(..19))
    });
    recent.next().and_then(|event| event.message)
}

/// An app's words among ours: indented, so that none of them is taken for a line of devsync's.
pub(super) fn indented(log: &str) -> String {
    let lines: Vec<String> = log.trim_end().lines().map(|line| format!("  {}", plain_line(line))).collect();
    lines.join("\n")
}

/// The last lines that a container wrote before it ended, indented; nothing where they cannot be had.
pub(super) async fn last_words(cluster: &Cluster, pod: &str, container: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for previous in [true, false] {
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(LAST_LINES),
            limit_bytes: Some(8192),
            ..LogParams::default()
        };
        if let Ok(Ok(text)) = timeout(super::ANSWER_WITHIN, pods.logs(pod, &params)).await
            && !text.trim().is_empty()
        {
            return indented(&text);
        }
    }
    String::new()
}

/// A failed rollout in a person's words. `after` says what became of the workload.
pub(super) async fn explain_failure(
    cluster: &Cluster,
    what: &str,
    failed: Failure,
    after: &str,
) -> CommandError {
    match failed {
        Failure::Image { pod, container, image, reason, message } => {
            let message = if message.is_empty() { reason.clone() } else { format!("{reason}: {message}") };
            failure(format!("{what}: container {container} of pod/{pod} cannot get its image {image}; {after}"))
                .cause(message)
                .hint(
                    "name an image that the node can pull: --agent-image IMAGE, with --image-pull-secret NAME where \
                     its registry asks for a login; or bring it there: kind load docker-image IMAGE, minikube image \
                     load IMAGE",
                )
        }
        Failure::Container { pod, container, reason, message } => {
            let log = last_words(cluster, &pod, &container).await;
            let error =
                failure(format!("{what}: container {container} of pod/{pod} is in {reason}; {after}"));
            if let Some(why) = foreign(cluster, &pod, &container, &format!("{message}\n{log}")).await {
                return error.cause(format!("{}; its last lines:\n{log}", why.cause)).hint(why.hint);
            }
            if complains_of_pid(&log) {
                return error
                    .cause(format!(
                        "it must be process 1, and in a shared process namespace it is not:\n{log}"
                    ))
                    .hint("--via ephemeral: that leaves process 1 as it is");
            }
            let log = if log.is_empty() { plain_line(&message) } else { format!("its last lines:\n{log}") };
            error.cause(log).hint(format!("kubectl describe pod {pod} {}", cluster.flags))
        }
        Failure::NoPods { message } => {
            failure(format!("{what}: the pod was refused; {after}")).cause(message).hint(
                "a quota or policy of the namespace says this: --via ephemeral may pass, or ask who set it",
            )
        }
        Failure::Deadline { message } => {
            failure(format!("{what}: the rollout does not come to its end; {after}"))
                .cause(message)
                .hint(format!("kubectl get pods,events {}", cluster.flags))
        }
    }
}

/// Removes new pods of a StatefulSet that failed: its controller waits for them for ever, even when its template is
/// back to what it was (kubernetes/kubernetes#67250).
pub(super) async fn clear_stuck(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
    before: &BTreeSet<String>,
) {
    if workload.kind != WorkloadKind::StatefulSet {
        return;
    }
    let Ok((pods, _)) = pods(cluster, object).await else { return };
    let stuck = pods.iter().filter(|pod| !before.contains(word(&pod["metadata"]["uid"])));
    for pod in stuck.filter(|pod| failure_of(pod).is_some()) {
        let api: Api<DynamicObject> = api(cluster, WorkloadKind::Pod);
        let name = word(&pod["metadata"]["name"]);
        let _ = timeout(super::ANSWER_WITHIN, api.delete(name, &this_one(pod))).await;
    }
}
