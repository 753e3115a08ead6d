//! A server in the agent's place that has another host key: refused by ssh, attach, exec and shell before it is told
//! anything, although it would let anybody in.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, AGENT_IMAGE, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

/// The demo with an agent where the port-forward does not lead, and another pod's agent where it does.
fn with_impostor() -> Value {
    let mut demo = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
    let template = &mut demo["spec"]["template"];
    template["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "app"});
    let spec = &mut template["spec"];
    spec["containers"][1]["args"] = json!(["serve", "--listen", "127.0.0.2:2222"]);
    let impostor = json!({"name": "impostor", "image": AGENT_IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--listen", "127.0.0.1:2222", "--state", "/run/devsync/own"],
        "securityContext": {"runAsUser": 0, "runAsGroup": 0}});
    if let Some(containers) = spec["containers"].as_array_mut() {
        containers.push(impostor);
    }
    demo
}

/// ssh with the configuration that devsync made.
fn ssh(namespace: &Namespace, project: &Project, target: &str, command: &str) -> Result<Said> {
    let made = namespace.run(project, &["ssh-config", target])?.code(0)?;
    let host = made.out.lines().find_map(|line| line.strip_prefix("ssh ")).context(made.out.clone())?;
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(namespace.devsync.home.join("state/devsync/ssh/config")).args([host, command]);
    // The same homes as the command that wrote the file.
    let like = namespace.command(project, &["proxy"]);
    ssh.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    ssh.stdin(Stdio::null());
    Said::by(ssh)
}

fn nothing_came(namespace: &Namespace, pod: &str) -> Result<()> {
    let source = namespace.kubectl.run(&["exec", pod, "-c", "app", "--", "cat", "/app/adder.py"])?;
    ensure!(!source.contains("(secret)"), "the file was sent");
    let told = namespace.kubectl.run(&["logs", pod, "-c", "impostor"])?;
    ensure!(told.contains("ssh-ed25519") && !told.contains("login"), "{told}");
    Ok(())
}

fn is_refused(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&with_impostor().to_string(), "demo")?;
    let pod = namespace.pod("demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    project.save(" (secret)")?;
    let words = ["has host key SHA256:", "not the pinned SHA256:", "hint: "];
    let attach = ["attach", "deploy/demo", "--once", "--yes"];
    namespace.run(&project, &attach)?.code(3)?.says(&words)?;
    Said::fed(namespace.command(&project, &["shell", "deploy/demo"]), b"echo let in\n".to_vec())?
        .says(&words)?;
    let said = ssh(namespace, &project, "deploy/demo", "echo let in")?.code(255)?;
    ensure!(!said.out.contains("let in"), "{said:?}");
    said.says(&["Host key verification failed"])?;
    nothing_came(namespace, &pod)
}

#[test]
#[ignore = "needs: cluster"]
fn a_server_with_another_host_key_is_refused_before_any_data() -> Result<()> {
    in_namespace(is_refused)
}

/// Who may not use pods/exec gives the key; that of another pod, or an old one, fits no more.
fn given_key_is_checked(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
    let pod = namespace.pod("demo")?;
    let rules = json!([{"apiGroups": ["", "apps"], "resources": ["pods", "pods/log", "deployments", "replicasets"],
                        "verbs": ["get", "list"]},
                       {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "few"},
                      "rules": rules});
    namespace.apply(&role.to_string())?;
    namespace.kubectl.run(&["create", "rolebinding", "few", "--role=few", "--user=dev"])?;
    let dev = namespace.as_user("dev")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    project.save(" (secret)")?;
    let key = namespace.path("id");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    let (key, other) = (key.to_string_lossy().into_owned(), fs::read_to_string(namespace.path("id.pub"))?);
    let attach = |more: &[&str]| {
        let words = [&["attach", "deploy/demo", "--once", "--yes", "--identity", &key][..], more].concat();
        let mut command = namespace.command(&project, &words);
        command.env("KUBECONFIG", dev.kubeconfig());
        Said::by(command)
    };
    attach(&["--host-key", other.trim()])?.refused(&["has host key SHA256:", "not the pinned SHA256:"])?;
    // The right one, from the agent's log: then this key is what it does not know.
    let said = attach(&[])?.refused(&["does not accept"])?;
    ensure!(!said.err.contains("host key"), "{said:?}");
    let source = namespace.kubectl.run(&["exec", &pod, "-c", "app", "--", "cat", "/app/adder.py"])?;
    ensure!(!source.contains("(secret)"), "the file was sent");
    let log = namespace.kubectl.run(&["logs", &pod, "-c", contract::AGENT_CONTAINER])?;
    ensure!(log.contains("ssh-ed25519"), "{log}");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn a_key_that_was_given_for_another_pod_fits_no_more() -> Result<()> {
    in_namespace(given_key_is_checked)
}

#[test]
#[ignore = "needs: cluster"]
fn ssh_reaches_a_pod_whose_key_is_pinned_anew_each_time() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let look = || ssh(namespace, &project, "deploy/demo", "id -u; pwd; exit 7");
        ensure!(look()?.code(7)?.out == "65532\n/app\n");
        // Another pod has another key, under the same name.
        let old = namespace.pod("demo")?;
        namespace.kubectl.run(&["delete", "pod", &old, "--wait=false"])?;
        namespace.until("another pod", || Ok(namespace.pod("demo").ok().filter(|pod| *pod != old)))?;
        namespace.rolled_out("demo")?;
        ensure!(look()?.code(7)?.out == "65532\n/app\n");
        Ok(())
    })
}
