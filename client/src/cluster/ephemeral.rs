//! Adds the agent to a running pod as an ephemeral container: nothing is restarted. It cannot be taken out again: it ends
//! with the pod, or when it is told to.

mod body;

use std::time::Duration;

use devsync_protocol::contract;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::add::{AddOptions, Added, Say, Step, agree};
use super::foreign::foreign;
use super::obstacles::{check_pod, cluster as failure};
use super::sidecar::{Refused, level, refusal};
use super::{ANSWER_WITHIN, Cluster, PodTarget, rollout};
use crate::error::CommandError;
use crate::report::plain;
use devsync_injector::security::{Fit, Level, Runs, fit, fit_as_app};

pub(super) use body::{Ours, ours};

/// An image may have to be pulled first.
const RUNS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const SERVE: [&str; 1] = ["serve"];

/// A way that the server takes, found in a dry run.
pub(super) struct Way {
    name: String,
    patch: Value,
    fit: Fit,
    dead: usize,
    level: Level,
    /// The app's, as the pod's spec has it.
    container: Value,
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
        let patch = body::patch(&next, opts.image(), &target.container, &fit.context, &SERVE);
        match try_patch(cluster, target, &patch).await? {
            None => return Ok(Ok(Way { name: next, patch, fit, dead, level, container })),
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
    let dead = way.dead;
    say(Step::Plan(format!(
        "an ephemeral container {} in {target} of namespace {} of context {}: {}, {}; nothing is restarted, and it stays \
         in the pod's spec until the pod is replaced",
        way.name,
        target.namespace,
        cluster.context_name(),
        opts.image(),
        match way.fit.runs {
            Runs::Given => "with the app's ids, which another one before it finds out".to_owned(),
            _ => format!("as {}", way.fit.words()),
        },
    )));
    if dead > 0 {
        let text = format!("{target} has {dead} of them that have ended: a new pod would be without");
        say(Step::Note { text, hint: None });
    }
    if opts.dry_run {
        return Ok(Added::OnlySaid);
    }
    agree(&format!("Add the agent to {target}?"), opts).await?;
    let Way { name, patch, .. } = match way.fit.runs {
        Runs::Given => with_the_apps_ids(cluster, target, way, opts, say).await?,
        _ => way,
    };
    patch_pod(cluster, target, &patch).await?;
    wait(cluster, target, &name).await?;
    say(Step::Done(format!("{target} has devsync's agent")));
    Ok(Added::Ready)
}

/// Where neither the spec nor the node says as whom the app runs, and root is not allowed: a first container looks, and
/// ends at once.
async fn with_the_apps_ids(
    cluster: &Cluster,
    target: &PodTarget,
    way: Way,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Way, CommandError> {
    let app = format!("container/{}", target.container_id);
    let args = [contract::IDS, "--target", &app];
    let patch = body::patch(&way.name, opts.image(), &target.container, &way.fit.context, &args);
    patch_pod(cluster, target, &patch).await?;
    let ids = look_at_ids(cluster, target, &way.name).await?;
    let pod = cluster.ask(&format!("{target} cannot be read"), cluster.pods().get(&target.pod)).await?;
    let pod = serde_json::to_value(pod).unwrap_or_default();
    let fit = fit(&pod["spec"], &body::with_ids(&way.container, ids), way.level);
    let name = ours(&pod).next;
    let patch = body::patch(&name, opts.image(), &target.container, &fit.context, &SERVE);
    say(Step::Progress(format!("the app runs as {}:{}, and so will the agent", ids.0, ids.1)));
    Ok(Way { name, patch, fit, ..way })
}

/// What the container that looks found out, once it has ended.
async fn look_at_ids(cluster: &Cluster, target: &PodTarget, name: &str) -> Result<(u32, u32), CommandError> {
    let ended = until_started(cluster, target, name, true).await?;
    let Ended { reason, code, message } = ended.unwrap_or_default();
    if let Some(ids) = body::told_ids(&message) {
        return Ok(ids);
    }
    let log = rollout::last_words(cluster, &target.pod, name).await;
    body::told_ids(&log).ok_or_else(|| {
        failure(format!("as whom the app of {target} runs could not be found out"))
            .cause(format!("the container {name} ended ({reason}, exit code {code}):\n{log}"))
            .hint("state runAsUser and runAsGroup in the app's securityContext")
    })
}

async fn patch_pod(cluster: &Cluster, target: &PodTarget, patch: &Value) -> Result<(), CommandError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    let patched = pods.patch_ephemeral_containers(&target.pod, &params, &patch);
    cluster.ask(&format!("{target} cannot be given an ephemeral container"), patched).await.map(drop)
}

async fn wait(cluster: &Cluster, target: &PodTarget, name: &str) -> Result<(), CommandError> {
    let Some(Ended { reason, code, message }) = until_started(cluster, target, name, false).await? else {
        return Ok(());
    };
    let log = rollout::last_words(cluster, &target.pod, name).await;
    let error = failure(format!("the agent in {target} ended at once; {}", stays(name)));
    if let Some(why) = foreign(cluster, &target.pod, name, &format!("{message}\n{log}")).await {
        return Err(error.cause(format!("{}; its last lines:\n{log}", why.cause)).hint(why.hint));
    }
    Err(error
        .cause(format!("{reason} (exit code {code}):\n{log}"))
        .hint(format!("kubectl logs {} {} -c {name}", target.pod, cluster.flags)))
}

fn stays(name: &str) -> String {
    format!("the container {name} stays in its spec, and does nothing")
}

/// How a container ended.
#[derive(Default)]
struct Ended {
    reason: String,
    code: i64,
    message: String,
}

/// Waits until the container runs, which is `None`, or has ended; with `to_its_end` only for that.
async fn until_started(
    cluster: &Cluster,
    target: &PodTarget,
    name: &str,
    to_its_end: bool,
) -> Result<Option<Ended>, CommandError> {
    let until = Instant::now() + RUNS_WITHIN;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &target.namespace);
    loop {
        let pod = cluster.ask(&format!("{target} cannot be read"), pods.get(&target.pod)).await?;
        let pod = serde_json::to_value(pod).unwrap_or_default();
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array().into_iter().flatten();
        let state = statuses.into_iter().find(|s| s["name"] == name).map(|s| s["state"].clone());
        let state = state.unwrap_or_default();
        if let Some(ended) = state.get("terminated") {
            let text = |field: &str| plain(ended[field].as_str().unwrap_or_default());
            let code = ended["exitCode"].as_i64().unwrap_or(-1);
            return Ok(Some(Ended { reason: text("reason"), code, message: text("message") }));
        }
        if state.get("running").is_some() && !to_its_end {
            return Ok(None);
        }
        if let Some(failed) = rollout::failure_of(&pod) {
            let what = format!("{target} cannot be given an agent");
            return Err(rollout::explain_failure(cluster, &what, failed, &stays(name)).await);
        }
        if Instant::now() > until {
            return Err(failure(format!("the container {name} of {target} does not start; {}", stays(name)))
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
