//! Takes devsync out of a target again: its fields of a workload, its copy of a pod; and offers to replace pods that were
//! changed in place.

use devsync_protocol::contract::{FIELD_MANAGER, MODIFIED_AT};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;

use super::add::{Say, Step};
use super::obstacles::{cluster as failure, word};
use super::workload::{Maker, Workload, api, maker, value};
use super::{Cluster, WorkloadRef, copy, ephemeral, managed, mark, rollout, sidecar};
use crate::cli::WorkloadKind;
use crate::error::CommandError;
use crate::report::plain_line;

/// How it is taken out.
#[derive(Debug, Clone, Copy, Default)]
pub struct DetachOptions {
    /// Ask nothing: pods that were changed are replaced.
    pub yes: bool,
    /// Wait for the rollout.
    pub wait: bool,
    /// End another person's session, too.
    pub take_over: bool,
}

/// Takes out what attach put there. Where nothing is there, that is said, and is no error.
pub async fn detach(
    cluster: &Cluster,
    target: &WorkloadRef,
    opts: &DetachOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    if let WorkloadRef::Named { kind: WorkloadKind::Pod, name } = target {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let pod = cluster.ask(&format!("pod/{name} cannot be read"), pods.get_opt(name)).await?;
        match pod {
            Some(pod) if copy::is_copy(&pod) && pod.metadata.deletion_timestamp.is_some() => {
                say(Step::Done(format!("pod/{name}, the copy that devsync made, is ending")));
                return Ok(());
            }
            Some(pod) if copy::is_copy(&pod) => {
                let pod = serde_json::to_value(pod).unwrap_or_default();
                check_alone(std::slice::from_ref(&pod), opts.take_over)?;
                copy::delete(cluster, name, &pod).await?;
                say(Step::Done(format!("pod/{name}, the copy that devsync made, is deleted")));
                return Ok(());
            }
            Some(_) => {}
            None => {
                say(Step::Done(format!("there is no pod/{name}: nothing is left of it")));
                return Ok(());
            }
        }
    }
    match maker(cluster, target).await? {
        Maker::Workload { workload, object } => {
            if managed::is_manifest_of(&object, FIELD_MANAGER) {
                return Err(failure(format!(
                    "{workload} was applied by `devsync inject --apply`, all of it"
                ))
                .cause("to give up devsync's fields would take the app's along")
                .hint("apply the same files without devsync: devsync inject --eject -f FILE --apply"));
            }
            if managed::applied_by(&object, FIELD_MANAGER).next().is_some() {
                return fields(cluster, &workload, &object, opts, say).await;
            }
            let (pods, _) = rollout::pods(cluster, &object).await?;
            changed(cluster, &workload.to_string(), &pods, true, opts, say).await
        }
        Maker::Fixed { what, .. } => {
            let pods = match target {
                WorkloadRef::Named { kind: WorkloadKind::Pod, name } => {
                    let pods = api(cluster, WorkloadKind::Pod);
                    vec![value(&cluster.ask(&format!("{what} cannot be read"), pods.get(name)).await?)]
                }
                _ => Vec::new(),
            };
            let is_replaced = pods.iter().any(|pod| pod["metadata"].get("ownerReferences").is_some());
            changed(cluster, &what, &pods, is_replaced, opts, say).await
        }
    }
}

/// Refuses what would end the session of somebody else, unless that is meant.
pub(super) fn check_alone(pods: &[Value], take_over: bool) -> Result<(), CommandError> {
    let other = pods.iter().find_map(|pod| Some((pod, mark::somebody_else(pod)?)));
    match other {
        Some((pod, who)) if !take_over => {
            let name = word(&pod["metadata"]["name"]);
            Err(failure(format!("somebody else is attached to pod/{name}"))
                .cause(who)
                .hint("talk to each other; --take-over ends their session, or a mark that was left behind"))
        }
        _ => Ok(()),
    }
}

/// Gives devsync's fields of a workload up; new pods come without the agent.
async fn fields(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
    opts: &DetachOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    say(Step::Plan(format!(
        "a rollout of {workload} in namespace {} of context {}: takes out what devsync added",
        cluster.namespace,
        cluster.context_name()
    )));
    let (pods, _) = rollout::pods(cluster, object).await?;
    check_alone(&pods, opts.take_over)?;
    let before = rollout::uids(&pods);
    sidecar::take_out(cluster, workload, object).await?;
    if opts.wait
        && let Err(failed) = rollout::wait(cluster, workload, &before, say).await?
    {
        let what = format!("{workload} is as it was before, but its pods do not come up");
        let after = "devsync has no part in it any more";
        return Err(rollout::explain_failure(cluster, &what, failed, after).await);
    }
    say(Step::Done(format!("{workload} is as it was: devsync owns no field of it")));
    Ok(())
}

/// Pods with an ephemeral agent, or with files that are not their image's: only a new pod is clean.
async fn changed(
    cluster: &Cluster,
    what: &str,
    pods: &[Value],
    is_replaced: bool,
    opts: &DetachOptions,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    let mut found = false;
    check_alone(pods, opts.take_over)?;
    for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let ended = end_agents(cluster, pod, say).await;
        let Some(left) = left_in(pod, &ended) else { continue };
        found = true;
        let name = word(&pod["metadata"]["name"]);
        if !is_replaced {
            let text = format!("pod/{name} has {left}, and nothing would replace it");
            say(Step::Note { text, hint: Some(format!("kubectl delete pod {name} {}", cluster.flags)) });
            continue;
        }
        let question = format!("pod/{name} has {left}. Delete it, so that a clean one replaces it?");
        if !opts.yes && crate::ask::confirm(&question).await != Some(true) {
            let text = format!("pod/{name} keeps {left} until it is replaced");
            say(Step::Note { text, hint: Some(format!("kubectl delete pod {name} {}", cluster.flags)) });
            continue;
        }
        let pods = api(cluster, WorkloadKind::Pod);
        let params = rollout::this_one(pod);
        let deleted = pods.delete(name, &params);
        cluster.ask(&format!("pod/{name} cannot be deleted"), deleted).await?;
        say(Step::Done(format!("pod/{name} is deleted, a clean one replaces it")));
    }
    if !found {
        say(Step::Done(format!("{what} has nothing of devsync")));
    }
    Ok(())
}

/// Ends the ephemeral agents of a pod; gives the names of those that were ended. A sidecar's would be started anew.
async fn end_agents(cluster: &Cluster, pod: &Value, say: &mut Say<'_>) -> Vec<String> {
    let name = word(&pod["metadata"]["name"]);
    let mut ended = Vec::new();
    for agent in ephemeral::ours(pod).live {
        match super::agent::stop(cluster, name, &agent).await {
            Ok(()) => {
                say(Step::Done(format!(
                    "the agent in pod/{name} has ended; its container {agent} stays listed"
                )));
                ended.push(agent);
            }
            Err(error) => say(Step::Note {
                text: format!("the agent {agent} in pod/{name} runs on: {}", error.line()),
                hint: error.get_hint().map(str::to_owned),
            }),
        }
    }
    ended
}

/// What of devsync is in a pod; `ended` are agents that were ended a moment ago.
fn left_in(pod: &Value, ended: &[String]) -> Option<String> {
    let ephemeral::Ours { mut live, dead, .. } = ephemeral::ours(pod);
    live.retain(|agent| !ended.contains(agent));
    let dead = dead + ended.len();
    let mut parts = Vec::new();
    if !live.is_empty() {
        parts.push(format!("an agent ({})", live.join(", ")));
    }
    if dead > 0 {
        parts.push(crate::report::count(dead, "ended agent"));
    }
    if let Some(at) = pod["metadata"]["annotations"][MODIFIED_AT].as_str() {
        parts.push(format!("files that were synced at {}", plain_line(at)));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stays_in_a_pod_is_named() {
        assert_eq!(left_in(&json!({"metadata": {"name": "x"}}), &[]), None);
        let pod = json!({"metadata": {"annotations": {MODIFIED_AT: "10:00"}},
            "spec": {"ephemeralContainers": [{"name": "devsync-agent-1"}, {"name": "devsync-agent-2"}]},
            "status": {"ephemeralContainerStatuses": [{"name": "devsync-agent-1", "state": {"terminated": {}}}]}});
        let expected = "an agent (devsync-agent-2) and 1 ended agent and files that were synced at 10:00";
        assert_eq!(left_in(&pod, &[]).as_deref(), Some(expected));
        let expected = "2 ended agents and files that were synced at 10:00";
        assert_eq!(left_in(&pod, &["devsync-agent-2".to_owned()]).as_deref(), Some(expected));
    }

    #[test]
    fn another_persons_session_is_not_ended_by_a_detach() {
        let pods =
            [json!({"metadata": {"name": "demo-1", "annotations": {"devsync.dev/attached-by": "ann@x"}}})];
        let error = check_alone(&pods, false).expect_err("refused");
        assert!(error.causes() == ["ann@x"] && error.get_hint().is_some_and(|h| h.contains("--take-over")));
        assert!(check_alone(&pods, true).is_ok() && check_alone(&[json!({})], false).is_ok());
    }
}
