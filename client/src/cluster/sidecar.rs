//! Adds the agent to a workload by server-side apply, and takes it out again. What can be known beforehand is asked in
//! dry runs, so that a refusal leaves the workload as it was; what fails later is put back.

mod document;
mod refusal;

use devsync_protocol::contract::{AGENT_CONTAINER, FIELD_MANAGER};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use super::add::{AddOptions, Added, Say, Step, agree};
use super::detach::check_alone;
use super::obstacles::{
    app_container, check_owner, check_pod, check_rollout, check_sidecar, cluster as failure, word,
};
use super::workload::{Workload, api};
use super::{Cluster, managed, rollout};
use crate::cli::WorkloadKind;
use crate::error::CommandError;
use devsync_injector::agent::{Agent, agent_in};
use devsync_injector::security::{Fit, Level, Runs, fit, fit_as_app};

pub(super) use document::empty_document;
pub(super) use refusal::{Refused, explain_apply, explain_conflict, refusal};

/// Adds an agent to the workload's template and waits for its pods.
pub(super) async fn add(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
    opts: &AddOptions,
    say: &mut Say<'_>,
) -> Result<Added, CommandError> {
    let name = workload.to_string();
    let template = &object["spec"]["template"];
    let spec = &template["spec"];
    check_pod(spec, &name)?;
    let is_manifest = managed::is_manifest_of(object, FIELD_MANAGER);
    if agent_in(spec).is_none() && is_manifest {
        return Err(failure(format!("{name} was applied by `devsync inject --apply`, all of it"))
            .cause("devsync's own fields would take the place of the app's")
            .hint(
                "apply the same files with the agent: devsync inject -f FILE --apply; or --via ephemeral",
            ));
    }
    if agent_in(spec).is_some()
        && (is_manifest || managed::applied_by(object, FIELD_MANAGER).next().is_none())
    {
        // Whoever put it there keeps it; its pods may still be on their way.
        return wait(cluster, workload, &Default::default(), say).await.map(|()| Added::Ready);
    }
    check_owner(object, &name, opts.overwrite)?;
    check_rollout(object, &name)?;
    let app = app_container(template, cluster.container.as_deref(), &name)?;
    check_sidecar(spec, app, &name)?;
    let level = level(cluster).await?;
    let first = fit(spec, app, level);
    let Planned { document, merged, fit } = match plan(cluster, workload, object, opts, first.clone()).await?
    {
        Ok(planned) => planned,
        Err(refused) => {
            let other = fit_as_app(spec, app).filter(|other| *other != first);
            let other = other.ok_or_else(|| refused.explain(cluster, &name))?;
            let planned = plan(cluster, workload, object, opts, other).await?;
            let planned = planned.map_err(|_| refused.explain(cluster, &name))?;
            let text =
                "the agent runs with the app's ids, since root was refused: files of root stay as they are";
            say(Step::Note { text: text.to_owned(), hint: None });
            planned
        }
    };
    if merged["spec"]["template"] == *template {
        return wait(cluster, workload, &Default::default(), say).await.map(|()| Added::Ready);
    }
    announce(cluster, workload, opts, &fit, say);
    if opts.dry_run {
        return Ok(Added::OnlySaid);
    }
    agree(&format!("Roll out {name} with devsync's agent?"), opts).await?;
    let (pods, _) = rollout::pods(cluster, object).await?;
    check_alone(&pods, opts.args.take_over)?;
    let before = rollout::uids(&pods);
    let applied = workload.apply(&document, false).await;
    let applied = applied.map_err(|error| explain_apply(cluster, error, &name))?;
    let waited = rollout::wait(cluster, workload, &before, say).await.map_err(|error| {
        error
            .hint(format!("{name} may be rolling out; devsync detach {name} {} takes it back", cluster.flags))
    });
    match waited? {
        Ok(()) => {
            say(Step::Done(format!("{name} runs with devsync's agent")));
            Ok(Added::Ready)
        }
        Err(failed) => {
            let what = format!("{name} cannot be given an agent");
            let after = put_back(cluster, workload, object, (&document, &applied)).await;
            let error = rollout::explain_failure(cluster, &what, failed, &after).await;
            rollout::clear_stuck(cluster, workload, object, &before).await;
            Err(error)
        }
    }
}

/// A change that the server took in dry runs.
struct Planned {
    document: Value,
    merged: Value,
    fit: Fit,
}

/// Tries the change; the inner error is a refusal of the pod that would come.
async fn plan(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
    opts: &AddOptions,
    fit: Fit,
) -> Result<Result<Planned, Refused>, CommandError> {
    let agent = Agent {
        image: opts.image().to_owned(),
        pull_secret: opts.args.image_pull_secret.clone(),
        ..Agent::new(fit.context.clone())
    };
    let document = document::document(&agent, object);
    let merged = match workload.apply(&document, true).await {
        Ok(merged) => merged,
        Err(error) => return Err(explain_apply(cluster, error, &workload.to_string())),
    };
    Ok(match try_pod(cluster, workload, &merged).await {
        Some(refused) => Err(refused),
        None => Ok(Planned { document, merged, fit }),
    })
}

/// Asks the server whether it would take a pod of the template: quotas, policies and webhooks judge pods, and the
/// controller that makes them later has nobody to tell. `None` too where this user may not ask.
async fn try_pod(cluster: &Cluster, workload: &Workload, merged: &Value) -> Option<Refused> {
    let template = &merged["spec"]["template"];
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", workload.name.chars().take(200).collect::<String>()),
            "namespace": cluster.namespace,
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
        },
        "spec": template["spec"],
    });
    let pod: DynamicObject = serde_json::from_value(pod).ok()?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let pods = api(cluster, WorkloadKind::Pod);
    let answer = tokio::time::timeout(super::ANSWER_WITHIN, pods.create(&params, &pod)).await.ok()?;
    let refused = refusal(answer.err()?)?;
    // Where old pods end before new ones come, their share of a quota is free by then.
    let replaces =
        workload.kind != WorkloadKind::Deployment || merged["spec"]["strategy"]["type"] == "Recreate";
    (!(replaces && refused.is_quota())).then_some(refused)
}

/// What the namespace enforces; who may not read it finds out by being refused.
pub(super) async fn level(cluster: &Cluster) -> Result<Level, CommandError> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    match tokio::time::timeout(super::ANSWER_WITHIN, namespaces.get(&cluster.namespace)).await {
        Ok(Ok(namespace)) => Ok(Level::of_namespace(&serde_json::to_value(namespace).unwrap_or_default())),
        Ok(Err(error)) if super::explain::is_forbidden(&error) => Ok(Level::Privileged),
        Ok(Err(error)) => {
            Err(cluster.explain(error, &format!("namespace {} cannot be read", cluster.namespace)))
        }
        Err(_) => Ok(Level::Privileged),
    }
}

fn announce(cluster: &Cluster, workload: &Workload, opts: &AddOptions, fit: &Fit, say: &mut Say<'_>) {
    say(Step::Plan(format!(
        "a rollout of {workload} in namespace {} of context {}: adds container {AGENT_CONTAINER} ({}, as {}), \
         an emptyDir, and shareProcessNamespace; `devsync detach {workload}` takes exactly that out again",
        cluster.namespace,
        cluster.context_name(),
        opts.image(),
        fit.words(),
    )));
    if fit.runs == Runs::Given {
        let text = format!(
            "{workload} does not state the app's uid and gid, and root is not allowed here: where the ids differ the \
             agent cannot reach the app"
        );
        let hint = "state runAsUser and runAsGroup in the app's securityContext".to_owned();
        say(Step::Note { text, hint: Some(hint) });
    }
}

async fn wait(
    cluster: &Cluster,
    workload: &Workload,
    before: &std::collections::BTreeSet<String>,
    say: &mut Say<'_>,
) -> Result<(), CommandError> {
    match rollout::wait(cluster, workload, before, say).await? {
        Ok(()) => Ok(()),
        Err(failed) => {
            let what = format!("the pods of {workload} do not come up");
            Err(rollout::explain_failure(cluster, &what, failed, "nothing was changed").await)
        }
    }
}

/// Gives up all fields again, or puts the agent back that `object` had, and says what became of it.
async fn put_back(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
    (document, applied): (&Value, &Value),
) -> String {
    let done = match agent_in(&object["spec"]["template"]["spec"]) {
        Some(before) => {
            let mut document = document.clone();
            document["spec"]["template"]["spec"]["containers"] = json!([before]);
            let again = workload.apply(&document, false).await;
            again.map_err(|error| explain_apply(cluster, error, &workload.to_string()))
        }
        None => take_out(cluster, workload, applied).await,
    };
    match done {
        Ok(_) => "it is put back as it was".to_owned(),
        Err(error) => {
            let why = error.causes().join(": ");
            format!("it could not be put back ({error}: {why}), `devsync detach {workload}` tries again")
        }
    }
}

/// Takes devsync's fields out of the workload, and nothing else, and checks that. Answers with the object as it is
/// then.
pub(super) async fn take_out(
    cluster: &Cluster,
    workload: &Workload,
    object: &Value,
) -> Result<Value, CommandError> {
    let expected = managed::without(object, FIELD_MANAGER);
    let applied = workload.apply(&empty_document(object), false).await;
    let left = applied.map_err(|error| explain_apply(cluster, error, &workload.to_string()))?;
    let agent = format!("k:{{\"name\":\"{AGENT_CONTAINER}\"}}");
    if agent_in(&left["spec"]["template"]["spec"]).is_some() {
        let path = ["f:spec", "f:template", "f:spec", "f:containers", agent.as_str()];
        let others = managed::others_at(&left, FIELD_MANAGER, &path).join(", ");
        return Err(super::obstacles::cluster(format!(
            "{workload} still has the container {AGENT_CONTAINER}"
        ))
        .cause(format!("field manager {others} owns it too"))
        .hint("take it out with that tool"));
    }
    if managed::has_manager(&left, FIELD_MANAGER) {
        return Err(super::obstacles::cluster(format!("{workload} still has fields of devsync"))
            .hint(format!("kubectl get {workload} {} -o yaml --show-managed-fields", cluster.flags)));
    }
    if left["spec"]["template"] != expected["spec"]["template"] {
        let name = word(&left["metadata"]["name"]);
        return Err(super::obstacles::cluster(format!("the template of {workload} is not what it was"))
            .cause("somebody changed it at the same time")
            .hint(format!("kubectl get {}/{name} {} -o yaml", workload.kind, cluster.flags)));
    }
    Ok(left)
}
