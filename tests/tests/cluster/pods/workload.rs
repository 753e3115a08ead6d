//! The agent added to a workload that has none, and taken out again; whatever goes wrong, the workload is as it was.

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, AGENT_IMAGE, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

/// An attach that syncs one file and ends.
const ONCE: [&str; 7] =
    ["attach", "--once", "--sync", "Cargo.toml:/tmp/Cargo.toml", "--restart", "none", "--yes"];

fn attach(namespace: &Namespace, words: &[&str]) -> Result<Said> {
    let project = project(namespace)?;
    namespace.run(&project, &[&ONCE, words].concat())
}

fn project(namespace: &Namespace) -> Result<Project> {
    let dir = namespace.path("adder");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    Project::copy(Language::Rust, dir)
}

/// A demo that nobody but its team knows of.
fn plain(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")
}

fn spec(namespace: &Namespace) -> Result<Value> {
    Ok(namespace.kubectl.json(&["get", "deployment", "demo"])?["spec"].clone())
}

/// Fields of the Deployment as another tool applies them.
fn apply_as(namespace: &Namespace, manager: &str, spec: &Value) -> Result<()> {
    let document =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "demo"}, "spec": spec});
    let manager = format!("--field-manager={manager}");
    let words = ["apply", "--server-side", "--force-conflicts", "--validate=false", &manager];
    namespace.kubectl.feed(&words, &document.to_string()).map(drop)
}

/// The names of who owns fields of the Deployment.
fn managers(namespace: &Namespace) -> Result<Vec<String>> {
    let object = namespace.kubectl.json(&["get", "deployment", "demo"])?;
    let entries = object["metadata"]["managedFields"].as_array().context("managed fields")?;
    Ok(entries.iter().filter_map(|entry| Some(entry["manager"].as_str()?.to_owned())).collect())
}

/// A refusal of `words` that leaves the Deployment's spec and its pod alone.
fn refused(namespace: &Namespace, words: &[&str], says: &[&str]) -> Result<()> {
    let (before, pod) = (spec(namespace)?, namespace.pod("demo")?);
    attach(namespace, words)?.refused(says)?;
    ensure!(spec(namespace)? == before, "the spec was changed");
    namespace.rolled_out("demo")?;
    namespace.until("the pod that was there", || Ok((namespace.pod("demo")? == pod).then_some(())))
}

#[test]
#[ignore = "needs: cluster"]
fn detach_leaves_the_deployment_as_it_was_and_others_fields_alone() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        apply_as(namespace, "autoscaler", &json!({"replicas": 2}))?;
        let image = json!([{"name": "app", "image": manifests::RUST_OWNED}]);
        apply_as(namespace, "gitops", &json!({"template": {"spec": {"containers": image}}}))?;
        namespace.rolled_out("demo")?;
        let before = spec(namespace)?;
        attach(namespace, &["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE])?.code(0)?;
        let during = spec(namespace)?;
        ensure!(during["template"]["spec"]["shareProcessNamespace"] == true, "{during}");
        ensure!(
            during["replicas"] == 2
                && during["template"]["spec"]["containers"][0] == before["template"]["spec"]["containers"][0]
        );
        let project = project(namespace)?;
        namespace.run(&project, &["detach", "deploy/demo"])?.code(0)?;
        ensure!(spec(namespace)? == before, "{}", spec(namespace)?);
        let managers = managers(namespace)?;
        ensure!(!managers.iter().any(|name| name == "devsync"), "{managers:?}");
        ensure!(
            ["autoscaler", "gitops"].iter().all(|name| managers.iter().any(|m| m == name)),
            "{managers:?}"
        );
        let again = namespace.run(&project, &["detach", "deploy/demo"])?.code(0)?;
        ensure!(again.out.contains("has nothing of devsync"), "{again:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_image_that_no_node_can_pull_is_put_back() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        let nowhere = "localhost/devsync-agent:nowhere";
        let words = ["deploy/demo", "--via", "sidecar", "--agent-image", nowhere];
        refused(namespace, &words, &[nowhere, "put back as it was", "kind load", "--agent-image"])?;
        ensure!(!managers(namespace)?.iter().any(|name| name == "devsync"));
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_stateful_set_recovers_from_an_image_that_no_node_can_pull() -> Result<()> {
    in_namespace(|namespace| {
        let mut set = manifests::demo(manifests::RUST, 1, Agent::Absent);
        set["kind"] = json!("StatefulSet");
        set["spec"]["serviceName"] = json!("demo");
        namespace.apply(&set.to_string())?;
        let is_ready = || {
            let pods = namespace.pods("demo")?;
            let ready = pods.iter().any(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
            let clean =
                pods.iter().all(|pod| pod["spec"]["containers"].as_array().is_some_and(|c| c.len() == 1));
            Ok((ready && clean).then_some(()))
        };
        namespace.until("a ready pod", is_ready)?;
        let nowhere = "localhost/devsync-agent:nowhere";
        let said = attach(namespace, &["sts/demo", "--via", "sidecar", "--agent-image", nowhere])?;
        said.refused(&["put back as it was"])?;
        // Its controller alone would wait for the broken pod for ever.
        namespace.until("a pod as it was", is_ready)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_field_of_another_manager_is_named_and_never_forced() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        apply_as(namespace, "other-tool", &json!({"template": {"spec": {"shareProcessNamespace": false}}}))?;
        namespace.rolled_out("demo")?;
        refused(
            namespace,
            &["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE],
            &["spec.template.spec.shareProcessNamespace is managed by other-tool", "--via ephemeral"],
        )
    })
}

#[test]
#[ignore = "needs: cluster"]
fn what_helm_owns_is_changed_only_with_overwrite() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        namespace.kubectl.run(&["label", "deployment", "demo", "app.kubernetes.io/managed-by=Helm"])?;
        let words = ["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE];
        refused(namespace, &words, &["deploy/demo belongs to Helm", "--overwrite", "--copy-to"])?;
        attach(namespace, &[&words[..], &["--overwrite"]].concat())?.code(0)?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_refusing_policy_is_quoted_before_anything_is_changed() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        let limit = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"},
            "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}});
        namespace.apply(&limit.to_string())?;
        let words = ["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE];
        refused(namespace, &words, &["maximum memory usage per Container is 64Mi", "was not changed"])
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_user_without_rights_is_told_which() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        let words = ["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE, "--as", "ann"];
        refused(namespace, &words, &["user ann may not get deployments", "verbs: [\"get\"]"])?;
        let resources = "--resource=deployments.apps,replicasets.apps,pods";
        namespace.kubectl.run(&["create", "role", "reader", "--verb=get,list,watch", resources])?;
        namespace.kubectl.run(&["create", "rolebinding", "reader", "--role=reader", "--user=ann"])?;
        refused(namespace, &words, &["user ann may not patch deployments", "verbs: [\"patch\"]"])
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_that_must_be_process_1_keeps_its_place() -> Result<()> {
    in_namespace(|namespace| {
        let mut demo = manifests::demo(manifests::RUST, 1, Agent::Absent);
        demo["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["/init"]);
        // There is no such program: it is the template that is looked at, and no pod has to come up for that.
        demo["spec"]["replicas"] = json!(1);
        namespace.apply(&demo.to_string())?;
        let said = attach(namespace, &["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE])?;
        said.refused(&["starts /init, which must be process 1", "--via ephemeral"]).map(drop)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_copy_stands_beside_the_service_and_is_deleted_by_detach() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        let (before, pod) = (spec(namespace)?, namespace.pod("demo")?);
        attach(namespace, &["deploy/demo", "--copy-to", "mine", "--agent-image", AGENT_IMAGE])?.code(0)?;
        let copy = namespace.kubectl.json(&["get", "pod", "mine"])?;
        ensure!(
            copy["metadata"]["labels"].is_null() && copy["metadata"]["ownerReferences"].is_null(),
            "{copy}"
        );
        ensure!(spec(namespace)? == before && namespace.pod("demo")? == pod, "the original was changed");
        let project = project(namespace)?;
        namespace.run(&project, &["detach", "pod/mine"])?.code(0)?;
        namespace
            .until("no copy", || Ok(namespace.kubectl.run(&["get", "pod", "mine"]).is_err().then_some(())))?;
        namespace.run(&project, &["detach", "pod/mine"])?.code(0).map(drop)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_pod_says_who_was_attached_and_that_its_files_changed() -> Result<()> {
    in_namespace(|namespace| {
        plain(namespace)?;
        attach(namespace, &["deploy/demo", "--via", "sidecar", "--agent-image", AGENT_IMAGE])?.code(0)?;
        let marks = namespace.pods("demo")?[0]["metadata"]["annotations"].clone();
        ensure!(
            marks["devsync.dev/modified-at"].is_string() && marks["devsync.dev/attached-by"].is_null(),
            "{marks}"
        );
        let events = namespace.kubectl.json(&["get", "events"])?;
        let reasons: Vec<&str> = events["items"]
            .as_array()
            .context("events")?
            .iter()
            .filter_map(|e| e["reason"].as_str())
            .collect();
        ensure!(
            ["DevsyncAttached", "DevsyncDetached"].iter().all(|reason| reasons.contains(reason)),
            "{reasons:?}"
        );
        Ok(())
    })
}
