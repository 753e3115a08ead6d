//! A service in Python under gunicorn, in the way that a Debian image has it.

use std::fs;

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::{in_namespace, save_arrives, stop};

/// The container of the app in a Deployment.
fn app(deployment: &mut Value) -> &mut Value {
    &mut deployment["spec"]["template"]["spec"]["containers"][0]
}

/// Runs Python in the app's container, as the app's user.
fn python(namespace: &Namespace, pod: &str, program: &str) -> Result<String> {
    namespace.kubectl.run(&["exec", pod, "--container", "app", "--", "python3", "-c", program])
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_is_served_by_gunicorn() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        for save in [" (one)", " (two)"] {
            save_arrives(namespace, &project, std::slice::from_ref(&pod), save)?;
        }
        stop(attach)?;
        ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}

/// Changes the app's container, and saves once to what reloads itself.
fn reloads_itself(change: impl FnOnce(&mut Value)) -> Result<()> {
    in_namespace(|namespace| {
        let mut deployment = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
        change(app(&mut deployment));
        namespace.deploy(&deployment.to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo", "--restart", "none"])?;
        attach.first_sync()?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
        stop(attach)?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn gunicorns_own_reload_serves_what_arrives() -> Result<()> {
    reloads_itself(|app| app["args"] = json!(["--reload"]))
}

#[test]
#[ignore = "needs: cluster"]
fn watchmedo_restarts_what_arrives() -> Result<()> {
    let watchmedo = ["watchmedo", "auto-restart", "--directory", "/app", "--pattern", "*.py", "--"];
    let gunicorn = ["gunicorn", "--bind", "0.0.0.0:8080", "adder:app"];
    reloads_itself(|app| app["command"] = json!([&watchmedo[..], &gunicorn[..]].concat()))
}

#[test]
#[ignore = "needs: cluster"]
fn a_file_edited_in_a_root_apps_pod_is_reported_and_kept() -> Result<()> {
    in_namespace(|namespace| {
        let mut deployment = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
        app(&mut deployment)["securityContext"] = json!({"runAsUser": 0});
        namespace.deploy(&deployment.to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let data = project.dir.join("data.txt");
        fs::write(&data, "first")?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo", "--restart", "none"])?;
        attach.first_sync()?;
        python(namespace, &pod, "open('/app/data.txt', 'w').write('theirs')")?;
        fs::write(&data, "ours")?;
        let conflict = attach.event("conflict")?;
        ensure!(conflict["path"].as_str().is_some_and(|path| path.ends_with("data.txt")), "{conflict}");
        ensure!(python(namespace, &pod, "print(open('/app/data.txt').read())")?.trim() == "theirs");
        let said = namespace.run(&project, &["verify"])?.code(1)?;
        ensure!(said.out.contains("data.txt"), "{said:?}");
        stop(attach)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn restart_status_and_verify_work_on_a_pod() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        // What the image does not have.
        for file in ["Dockerfile", ".flake8", "test_adder.py"] {
            std::fs::remove_file(project.dir.join(file))?;
        }
        // With no attach each of them finds its own way.
        namespace.run(&project, &["verify", "deploy/demo"])?.code(0)?;
        namespace.run(&project, &["restart", &format!("pod/{pod}")])?.code(0)?;
        namespace.answers(&pod, QUESTION, &answer(""))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        let said = namespace.run(&project, &["status"])?.code(0)?;
        ensure!(said.out.contains("demo") && said.out.contains("/app"), "{said:?}");
        namespace.run(&project, &["verify"])?.code(0)?;
        namespace.run(&project, &["restart"])?.code(0)?;
        attach.event("restarted")?;
        namespace.answers(&pod, QUESTION, &answer(""))?;
        stop(attach)?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}
