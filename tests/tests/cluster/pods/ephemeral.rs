//! The agent as an ephemeral container: nothing of the pod is restarted, and it comes back when it ended with the app.

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, AGENT_IMAGE, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;
use serde_json::json;

use super::{in_namespace, save_arrives, stop};

/// The pod's ephemeral containers, by name.
fn agents(namespace: &Namespace, pod: &str) -> Result<Vec<String>> {
    let pod = namespace.kubectl.json(&["get", "pod", pod])?;
    let containers = pod["spec"]["ephemeralContainers"].as_array().cloned().unwrap_or_default();
    Ok(containers.iter().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect())
}

#[test]
#[ignore = "needs: a server with pods/ephemeralcontainers (1.25+), DEVSYNC_TEST_CONTEXT"]
fn an_ephemeral_agent_restarts_nothing_comes_back_and_is_ended_by_detach() -> Result<()> {
    in_namespace(|namespace| {
        let mut demo = manifests::demo(manifests::PYTHON, 1, Agent::Absent);
        demo["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0});
        namespace.deploy(&demo.to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let words = ["attach", "deploy/demo", "--via", "ephemeral", "--yes", "--agent-image", AGENT_IMAGE];
        let mut attach = namespace.attach(&project, &words)?;
        attach.first_sync()?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
        ensure!(namespace.restarts("demo")? == 0 && namespace.pod("demo")? == pod, "something was restarted");
        let first = agents(namespace, &pod)?;
        // The app's first process takes its agent along.
        namespace.kubectl.run(&["exec", &pod, "-c", "app", "--", "kill", "1"])?;
        attach.event("disconnected")?;
        attach.event_where("note", |note| {
            note["text"].as_str().is_some_and(|text| text.contains("adding another one"))
        })?;
        attach.event("reconnected")?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (two)")?;
        ensure!(agents(namespace, &pod)?.len() == first.len() + 1, "one more is there");
        stop(attach)?;
        let said = namespace.run(&project, &["detach", "deploy/demo"])?.code(0)?;
        ensure!(said.out.contains("has ended") && said.err.contains("ended agents"), "{said:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs: a server with pods/ephemeralcontainers (1.25+), DEVSYNC_TEST_CONTEXT"]
fn an_app_of_unknown_ids_is_looked_at_first_under_restricted() -> Result<()> {
    in_namespace(|namespace| {
        // The image says as whom it runs, the pod's spec does not.
        let mut demo = manifests::demo(manifests::RUST_OWNED, 1, Agent::Restricted);
        let spec = &mut demo["spec"]["template"]["spec"];
        spec["containers"].as_array_mut().context("containers")?.truncate(1);
        for field in ["runAsUser", "runAsGroup"] {
            spec["containers"][0]["securityContext"].as_object_mut().context("a context")?.remove(field);
        }
        spec.as_object_mut().context("a spec")?.remove("shareProcessNamespace");
        let level = "pod-security.kubernetes.io/enforce=restricted";
        namespace.kubectl.run(&["label", "namespace", &namespace.name, level])?;
        namespace.deploy(&demo.to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        let words = ["attach", "deploy/demo", "--via", "ephemeral", "--yes", "--agent-image", AGENT_IMAGE];
        let mut attach = namespace.attach(&project, &words)?;
        attach.first_sync()?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
        ensure!(agents(namespace, &pod)?.len() == 2, "one that looked, and one that serves");
        stop(attach)
    })
}
