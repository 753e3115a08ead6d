//! Adds the agent to a running pod as an ephemeral container: nothing is restarted. It cannot be taken out again: it ends
//! with the pod, or when it is told to.

mod body;

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::add::{AddOptions, Added, Say, Step, agree};
use super::obstacles::{check_pod, cluster as failure, word};
use super::sidecar::{Refused, level, refusal};
use super::{ANSWER_WITHIN, Cluster, PodTarget, rollout};
use crate::error::CommandError;
use devsync_injector::security::{Fit, fit, fit_as_app};

pub(super) use body::{Ours, ours};

/// An image may have to be pulled first.
const RUNS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A way that the server takes, found in a dry run.
pub(super) struct Way {
    name: String,
    patch: Value,
    fit: Fit,
    dead: usize,
}

/// Finds out whether an ephemeral agent is possible; the inner error says why not.
pub(super) async fn way(
    cluster: &Cluster,
    target: &PodTarget,
    opts: &AddOptions,
) -> Result<Result<Way, CommandError>, CommandError> {
    let doing = "the server cannot be asked what it offers";
    let core = cluster.ask(doing, cluster.client.list_core_api_resources("v1")).await?;
    if !body::is_offered(&core) {
        return Ok(Err(failure(format!("{} has no ephemeral containers", cluster.server))
            .cause("they come with Kubernetes 1.23 (1.25 without a feature gate)")
            .hint("--via sidecar: a rollout")));
    }
    if let Err(error) = may(cluster).await {
        return Ok(Err(error));
    }
    let pod = serde_json::to_value(&*target.object).unwrap_or_default();
    let name = target.to_string();
    check_pod(&pod["spec"], &name)?;
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let container =
        containers.into_iter().find(|c| c["name"] == *target.container).cloned().unwrap_or_default();
    let container = body::with_observed_ids(&container, &pod);
    let Ours { dead, next, .. } = ours(&pod);
    let level = level(cluster).await?;
    let first = fit(&pod["spec"], &container, level);
    let other = fit_as_app(&pod["spec"], &container).filter(|other| *other != first);
    let mut refused = None;
    for fit in [Some(first), other].into_iter().flatten() {
        let patch = body::patch(&next, opts.image(), &target.container, &fit.context);
        match try_patch(cluster, target, &patch).await? {
            None => return Ok(Ok(Way { name: next, patch, fit, dead })),
            Some(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    let error = refused.map(|refused: Refused| refused.explain(cluster, &name));
    Ok(Err(error.unwrap_or_else(|| failure(format!("{name} cannot be given an ephemeral container")))))
}

/// Adds the agent, and waits until it runs.
pub(super) async fn add(
    cluster: &Cluster,
    target: &PodTarget,
    way: Way,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    let Way { name, patch, fit, dead } = way;
    say(Step::Plan(format!(
        "an ephemeral container {name} in {target} of namespace {} of context {}: {}, as {}; nothing is restarted, and \
         it stays in the pod's spec until the pod is replaced",
        target.namespace,
        cluster.context_name(),
        opts.image(),
        fit.words(),
    )));
    if dead > 0 {
        let text = format!("{target} has {dead} of them that have ended: a new pod would be without");
        say(Step::Note { text, hint: None });
    }
    if opts.dry_run {
        return Ok(Added::OnlySaid);
    }
    agree(&format!("Add the agent to {target}?"), opts).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
    let patched = pods.patch_ephemeral_containers(&target.pod, &params, &patch);
    cluster.ask(&format!("{target} cannot be given an ephemeral container"), patched).await?;
    wait(cluster, target, &name).await?;
    say(Step::Done(format!("{target} has devsync's agent")));
    Ok(Added::Ready)
}

async fn wait(cluster: &Cluster, target: &PodTarget, name: &str) -> Result<(), CommandError> {
    let until = Instant::now() + RUNS_WITHIN;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let stays = format!("the container {name} stays in its spec, and does nothing");
    loop {
        let pod = cluster.ask(&format!("{target} cannot be read"), pods.get(&target.pod)).await?;
        let pod = serde_json::to_value(pod).unwrap_or_default();
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten();
        let state = statuses.into_iter().find(|s| s["name"] == name).map(|s| s["state"].clone());
        let state = state.unwrap_or_default();
        if state.get("running").is_some() {
            return Ok(());
        }
        if let Some(ended) = state.get("terminated") {
            let log = rollout::last_words(cluster, &target.pod, name).await;
            return Err(failure(format!("the agent in {target} ended at once; {stays}"))
                .cause(format!("{} (exit code {}): {log}", word(&ended["reason"]), ended["exitCode"]))
                .hint(format!("kubectl logs {} {} -c {name}", target.pod, cluster.flags)));
        }
        if let Some(failed) = rollout::failure_of(&pod) {
            let what = format!("{target} cannot be given an agent");
            return Err(rollout::explain_failure(cluster, &what, failed, &stays).await);
        }
        if Instant::now() > until {
            return Err(failure(format!("the agent in {target} does not start; {stays}"))
                .cause(format!("it had {} s", RUNS_WITHIN.as_secs()))
                .hint(format!("kubectl describe pod {} {}", target.pod, cluster.flags)));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Asks in a dry run; a refusal is the answer.
async fn try_patch(
    cluster: &Cluster,
    target: &PodTarget,
    patch: &Value,
) -> Result<Option<Refused>, CommandError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let (params, patch) = (PatchParams { dry_run: true, ..PatchParams::default() }, Patch::Strategic(patch));
    let asked = pods.patch_ephemeral_containers(&target.pod, &params, &patch);
    match timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(_)) | Err(_) => Ok(None),
        Ok(Err(kube::Error::Api(status))) => Ok(refusal(kube::Error::Api(status))),
        Ok(Err(error)) => Err(cluster.explain(error, &format!("{target} cannot be changed"))),
    }
}

/// Whether this user may; a server that cannot be asked says it later.
async fn may(cluster: &Cluster) -> Result<(), CommandError> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(cluster.namespace.clone()),
                verb: Some("patch".to_owned()),
                resource: Some("pods".to_owned()),
                subresource: Some("ephemeralcontainers".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = timeout(ANSWER_WITHIN, reviews.create(&PostParams::default(), &review)).await;
    let Ok(Ok(answer)) = answer else { return Ok(()) };
    match answer.status.is_none_or(|status| status.allowed) {
        true => Ok(()),
        false => Err(failure("you may not add ephemeral containers to pods here")
            .cause(format!(
                "patch pods/ephemeralcontainers is not allowed in namespace {}",
                cluster.namespace
            ))
            .hint(
                "somebody with the right to must add to your Role:\n- {apiGroups: [\"\"], resources: \
                 [\"pods/ephemeralcontainers\"], verbs: [\"patch\"]}",
            )),
    }
}
