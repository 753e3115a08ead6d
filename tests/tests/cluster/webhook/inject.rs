//! Pods of a labelled namespace get an agent, and nobody else's do.

use anyhow::{Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::{QUESTION, answer};
use devsync_tests::cluster::said::Said;
use serde_json::json;

use super::{SCOPE, has_agent, pod, repository, with_webhook};

#[test]
#[ignore = "needs: cluster"]
fn attach_works_at_once_in_a_labelled_namespace_and_others_are_untouched() -> Result<()> {
    with_webhook(|installed| {
        let namespace = installed.namespace;
        namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")?;
        let pods = namespace.pods("demo")?;
        ensure!(pods.len() == 1 && has_agent(&pods[0]), "{pods:?}");
        // The Deployment itself knows nothing of it.
        let deployment = namespace.kubectl.json(&["get", "deployment", "demo"])?;
        ensure!(!has_agent(&deployment["spec"]["template"]), "{deployment}");
        let mut attach = namespace.attach(&installed.project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        installed.project.save(" (one)")?;
        namespace.answers(&namespace.pod("demo")?, QUESTION, &answer(" (one)"))?;
        ensure!(attach.stop()?.code() == Some(0));

        // The same in a namespace without the label: the scope alone is not enough.
        let plain = format!("{}-plain", namespace.name);
        let labels = json!({SCOPE: namespace.name});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plain, "labels": labels}});
        namespace.apply(&object.to_string())?;
        let made = namespace.until("a service account", || {
            Ok(namespace.kubectl.run(&["get", "serviceaccount", "default", "-n", &plain]).ok().map(drop))
        });
        let tried = made.and_then(|()| installed.tried(&[pod("one")], &plain));
        namespace.kubectl.run(&["delete", "namespace", &plain, "--wait=false"])?;
        let (tried, said) = tried?;
        ensure!(!has_agent(&tried[0]) && !said.contains("Warning"), "{tried:?} {said}");
        // And one pod that is switched off.
        let mut off = pod("off");
        off["metadata"]["labels"] = json!({contract::INJECT: "disabled"});
        let (tried, _) = installed.tried(&[off], &namespace.name)?;
        ensure!(!has_agent(&tried[0]), "{tried:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_developer_with_the_role_of_the_manifests_attaches() -> Result<()> {
    with_webhook(|installed| {
        let namespace = installed.namespace;
        namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Absent).to_string(), "demo")?;
        let role = std::fs::read_to_string(repository("manifests/rbac/developer.yaml"))?;
        namespace.apply(&role)?;
        namespace.kubectl.run(&[
            "create",
            "rolebinding",
            "devsync",
            "--role=devsync-developer",
            "--user=dev",
        ])?;
        let dev = namespace.as_user("dev")?;
        let words = ["attach", "deploy/demo", "--once"];
        let mut command = namespace.command(&installed.project, &words);
        command.env("KUBECONFIG", dev.kubeconfig());
        installed.project.save(" (by dev)")?;
        let said = Said::by(command)?.code(0)?;
        ensure!(!format!("{said:?}").contains("may not"), "a right is missing: {said:?}");
        namespace.answers(&namespace.pod("demo")?, QUESTION, &answer(" (by dev)"))
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_job_completes_and_the_warning_says_that_it_was_left_alone() -> Result<()> {
    with_webhook(|installed| {
        let namespace = installed.namespace;
        let container = json!({"name": "app", "image": manifests::PYTHON, "imagePullPolicy": "IfNotPresent",
                               "command": ["python3", "-c", "print('done')"]});
        let template = json!({"metadata": {"labels": {"app": "once"}},
                              "spec": {"restartPolicy": "Never", "containers": [container]}});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"},
                         "spec": {"template": template}});
        namespace.apply(&job.to_string())?;
        namespace.kubectl.run(&["wait", "job/once", "--for=condition=Complete", "--timeout=50s"])?;
        let pods = namespace.pods("once")?;
        let mut again = pod("again");
        again["metadata"]["ownerReferences"] = pods[0]["metadata"]["ownerReferences"].clone();
        again["spec"]["restartPolicy"] = json!("Never");
        let (tried, said) = installed.tried(&[again], &namespace.name)?;
        ensure!(has_agent(&tried[0]) == has_agent(&pods[0]), "one pod of a Job is as the other");
        // From 1.29 on a sidecar ends with its Job.
        if !has_agent(&tried[0]) {
            ensure!(
                said.contains("Warning") && said.contains("its pods end (restartPolicy Never)"),
                "{said}"
            );
        }
        Ok(())
    })
}
