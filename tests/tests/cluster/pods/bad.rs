//! What cannot work is refused with its reason and what to do, and nothing is changed.

use anyhow::{Context, Result, ensure};
use devsync_tests::attach::Devsync;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::{in_namespace, stop};

fn app(deployment: &mut Value) -> &mut Value {
    &mut deployment["spec"]["template"]["spec"]["containers"][0]
}

fn project(namespace: &Namespace) -> Result<Project> {
    Project::copy(Language::Python, namespace.path("adder"))
}

/// The command with another value of one environment variable.
fn with(namespace: &Namespace, project: &Project, words: &[&str], variable: (&str, &str)) -> Result<Said> {
    let mut command = namespace.command(project, words);
    command.env(variable.0, variable.1);
    Said::by(command)
}

/// Waits until the first container of the pod waits for this reason.
fn waits_for(namespace: &Namespace, reasons: &[&str]) -> Result<()> {
    namespace.until(&format!("a container in {reasons:?}"), || {
        let pods = namespace.pods("demo")?;
        let state = pods.first().map(|pod| pod["status"]["containerStatuses"][0]["state"].clone());
        let reason = state.as_ref().and_then(|state| state["waiting"]["reason"].as_str());
        Ok(reason.filter(|reason| reasons.contains(reason)).map(|_| ()))
    })
}

#[test]
#[ignore = "needs: cluster"]
fn who_cannot_be_reached_or_found_is_named() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let mut empty = manifests::demo(manifests::RUST, 0, Agent::Absent);
        empty["metadata"]["name"] = json!("empty");
        empty["spec"]["selector"] = json!({"matchLabels": {"app": "empty"}});
        empty["spec"]["template"]["metadata"]["labels"] = json!({"app": "empty"});
        namespace.apply(&empty.to_string())?;
        let project = project(namespace)?;
        let attach = |words: &[&str]| namespace.run(&project, &[&["attach"][..], words].concat());
        with(namespace, &project, &["attach", "deploy/demo"], ("KUBECONFIG", "/nowhere/config"))?
            .refused(&["there is no kubeconfig", "/nowhere/config"])?;
        attach(&["deploy/demo", "--context", "devsync-tset"])?.refused(&["devsync-tset", "contexts"])?;
        attach(&["deploy/dmeo"])?.refused(&["there is no deploy/dmeo", "deploy/demo"])?;
        attach(&["deploy/demo", "--container", "web"])?.refused(&["web", "app"])?;
        attach(&["deploy/empty"])?.refused(&["deploy/empty", "zero replicas", "kubectl scale"])?;
        attach(&["deploy/demo", "--namespace", "nowhere-at-all"])?.refused(&["nowhere-at-all"])?;
        let user = namespace.laptop.json(&["config", "view"])?["users"][0]["name"].clone();
        let user = user.as_str().context("a user")?;
        namespace.laptop.run(&["config", "set-credentials", user, "--token=expired"])?;
        attach(&["deploy/demo"])?.refused(&["401"])?;
        let cluster = namespace.laptop.json(&["config", "view"])?["clusters"][0]["name"].clone();
        let cluster = cluster.as_str().context("a cluster")?;
        namespace.laptop.run(&["config", "set-cluster", cluster, "--server=https://127.0.0.1:1"])?;
        attach(&["deploy/demo"])?.refused(&["https://127.0.0.1:1", "cannot be reached"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_that_crashes_is_shown_with_its_last_words() -> Result<()> {
    in_namespace(|namespace| {
        let mut deployment = manifests::demo(manifests::PYTHON, 1, Agent::Absent);
        app(&mut deployment)["command"] =
            json!(["python3", "-c", "print('no database here'); raise SystemExit(3)"]);
        namespace.apply(&deployment.to_string())?;
        waits_for(namespace, &["CrashLoopBackOff"])?;
        let said = namespace.run(&project(namespace)?, &["attach", "deploy/demo", "--yes"])?;
        said.refused(&["CrashLoopBackOff", "no database here"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_whose_image_is_not_there_is_shown() -> Result<()> {
    in_namespace(|namespace| {
        let deployment = manifests::demo("localhost/nowhere:1", 1, Agent::Absent);
        namespace.apply(&deployment.to_string())?;
        waits_for(namespace, &["ImagePullBackOff", "ErrImagePull"])?;
        let said = namespace.run(&project(namespace)?, &["attach", "deploy/demo", "--yes"])?;
        said.refused(&["localhost/nowhere:1"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_read_only_root_is_named_with_what_to_mount() -> Result<()> {
    in_namespace(|namespace| {
        let mut deployment = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
        app(&mut deployment)["securityContext"] = json!({"readOnlyRootFilesystem": true});
        namespace.deploy(&deployment.to_string(), "demo")?;
        let project = project(namespace)?;
        project.save(" (one)")?;
        let said = namespace.run(&project, &["attach", "deploy/demo", "--once"])?;
        said.refused(&["read-only", "readOnlyRootFilesystem", "/app"])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn the_second_developer_is_told_who_is_there() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let project = project(namespace)?;
        let mut first = namespace.attach(&project, &["attach", "deploy/demo"])?;
        first.first_sync()?;
        // Somebody else, on another laptop.
        let other = Project::copy(Language::Python, namespace.path("other"))?;
        let laptop = Devsync::new(namespace.devsync.programs.clone(), namespace.path("other-home"))?;
        let attach = |more: &[&str]| {
            let mut command =
                laptop.command(&other.dir, &[&["attach", "deploy/demo", "--once"][..], more].concat());
            command.env("KUBECONFIG", namespace.laptop.kubeconfig());
            Said::by(command)
        };
        attach(&[])?.refused(&["since", "--take-over"])?;
        ensure!(first.ended()?.is_none(), "the first one goes on");
        attach(&["--take-over"])?.code(0)?;
        drop(first);
        let again = namespace.attach(&project, &["attach", "deploy/demo"]).and_then(|mut attach| {
            attach.first_sync()?;
            Ok(attach)
        })?;
        stop(again)
    })
}
