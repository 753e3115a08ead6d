//! Pods and programs that devsync has nothing for, and clusters that will not have its agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use devsync_tests::cluster::kubectl::Kubectl;
use devsync_tests::cluster::manifests::{self, AGENT_IMAGE, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

/// An ELF header of 64 bits for aarch64, and no more of it.
fn for_aarch64() -> Vec<u8> {
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable, of machine 183, version 1.
    header.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    header.extend([0; 28]);
    // The sizes of this header and of those that do not follow.
    header.extend([64, 0, 56, 0, 0, 0, 64, 0, 0, 0, 0, 0]);
    header
}

fn project(namespace: &Namespace) -> Result<Project> {
    Project::copy(Language::Rust, namespace.path("adder"))
}

fn spec(deployment: &mut Value) -> &mut Value {
    &mut deployment["spec"]["template"]["spec"]
}

#[test]
#[ignore = "needs: cluster"]
fn an_executable_for_another_machine_is_not_sent() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::RUST, 1, Agent::Baseline).to_string(), "demo")?;
        let (project, exe) = (project(namespace)?, namespace.path("adder-aarch64"));
        fs::write(&exe, for_aarch64())?;
        fs::set_permissions(&exe, fs::Permissions::from_mode(0o755))?;
        let exe = exe.to_string_lossy().into_owned();
        let said = namespace.run(&project, &["attach", "deploy/demo", "--exe", &exe, "--once"])?;
        said.refused(&["aarch64", "x86_64"])?;
        namespace.run(&project, &["restart", "deploy/demo"])?.code(0)?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_image_for_another_machine_is_named_as_the_reason() -> Result<()> {
    in_namespace(|namespace| {
        let program = namespace.path("program");
        fs::write(&program, for_aarch64())?;
        let from = format!("--from-file=program={}", program.display());
        namespace.kubectl.run(&["create", "configmap", "program", &from])?;
        let mut demo = manifests::demo(manifests::PYTHON, 1, Agent::Absent);
        let app = &mut spec(&mut demo)["containers"][0];
        app["command"] = json!(["/program/program"]);
        app["volumeMounts"] = json!([{"name": "program", "mountPath": "/program"}]);
        spec(&mut demo)["volumes"] =
            json!([{"name": "program", "configMap": {"name": "program", "defaultMode": 0o755}}]);
        namespace.apply(&demo.to_string())?;
        // In its status or in its log, as the runtime has it.
        namespace.until("a container that was tried", || {
            let pods = namespace.pods("demo")?;
            let status =
                pods.first().map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64());
            Ok(status.flatten().filter(|restarts| *restarts > 0).map(|_| ()))
        })?;
        let said = namespace.run(&project(namespace)?, &["attach", "deploy/demo", "--yes"])?;
        said.refused(&["exec format error", "another architecture", "demo-python", "amd64"]).map(drop)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn pods_of_windows_and_of_the_nodes_processes_are_refused_by_name() -> Result<()> {
    in_namespace(|namespace| {
        let project = project(namespace)?;
        let mut windows = manifests::demo(manifests::RUST, 1, Agent::Absent);
        spec(&mut windows)["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
        namespace.apply(&windows.to_string())?;
        let pod = namespace.until("a pod", || Ok(namespace.pod("demo").ok()))?;
        namespace.run(&project, &["attach", "deploy/demo", "--yes"])?.refused(&[&pod, "Windows"])?;
        let mut host = manifests::demo(manifests::RUST, 1, Agent::Absent);
        host["metadata"]["name"] = json!("host");
        host["spec"]["selector"] = json!({"matchLabels": {"app": "host"}});
        host["spec"]["template"]["metadata"]["labels"] = json!({"app": "host"});
        spec(&mut host)["hostPID"] = json!(true);
        namespace.deploy(&host.to_string(), "host")?;
        let pod = namespace.pod("host")?;
        namespace.run(&project, &["attach", "deploy/host", "--yes"])?.refused(&[&pod, "hostPID"])?;
        ensure!(namespace.pod("host")? == pod, "the pod was replaced");
        Ok(())
    })
}

/// A webhook configuration of the whole cluster, which goes with the test.
struct Webhook<'k>(&'k Kubectl, String);

impl Drop for Webhook<'_> {
    fn drop(&mut self) {
        let _ = self.0.run(&["delete", "validatingwebhookconfiguration", &self.1]);
    }
}

#[test]
#[ignore = "needs: cluster"]
fn a_webhook_that_refuses_pods_is_quoted_and_nothing_is_changed() -> Result<()> {
    in_namespace(|namespace| {
        let demo = manifests::demo(manifests::RUST, 1, Agent::Absent).to_string();
        namespace.deploy(&demo, "demo")?;
        let (name, pod) = (&namespace.name, namespace.pod("demo")?);
        namespace.kubectl.run(&["label", "namespace", name, &format!("refuses={name}")])?;
        let service = json!({"name": "nobody", "namespace": name, "path": "/"});
        let webhook = json!({
            "name": "pods.devsync-test.dev", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 2,
            "admissionReviewVersions": ["v1"], "clientConfig": {"service": service},
            "namespaceSelector": {"matchLabels": {"refuses": name}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]});
        let _goes = Webhook(&namespace.kubectl, name.clone());
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name},
            "kind": "ValidatingWebhookConfiguration", "webhooks": [webhook]});
        namespace.apply(&configuration.to_string())?;
        // Within some time the API server has read it.
        let probe = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
            "spec": {"containers": [{"name": "app", "image": manifests::RUST}]}});
        namespace.until("a refusal", || {
            let made = namespace.kubectl.feed(&["create", "--dry-run=server"], &probe.to_string());
            Ok(made.is_err().then_some(()))
        })?;
        let before = namespace.kubectl.json(&["get", "deployment", "demo"])?["spec"].clone();
        let words = ["attach", "deploy/demo", "--yes", "--via", "sidecar", "--agent-image", AGENT_IMAGE];
        let said = namespace.run(&project(namespace)?, &words)?;
        said.refused(&["pods.devsync-test.dev", "was not changed", "--copy-to"])?;
        ensure!(namespace.kubectl.json(&["get", "deployment", "demo"])?["spec"] == before, "it was changed");
        ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
        Ok(())
    })
}
