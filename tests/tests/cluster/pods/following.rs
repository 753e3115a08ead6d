//! What was lost is found again: connections, agents, pods, the API server. Work goes on where it was.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::relay::Relay;
use devsync_tests::demo::project::Language;
use serde_json::json;

use super::{in_namespace, save_arrives, stop};

/// The laptop's way to the API server goes through a relay from now on.
fn relay(namespace: &Namespace) -> Result<Relay> {
    let config = namespace.laptop.json(&["config", "view"])?;
    let cluster = &config["clusters"][0];
    let server = cluster["cluster"]["server"].as_str().context("a server")?;
    let host = server.strip_prefix("https://").context("a server with TLS")?;
    let relay = Relay::start(address(host)?)?;
    let name = cluster["name"].as_str().context("a name")?;
    let (host, port) = (host.split(':').next().unwrap_or_default(), relay.address().port());
    let server = [format!("--server=https://127.0.0.1:{port}"), format!("--tls-server-name={host}")];
    namespace.laptop.run(&["config", "set-cluster", name, &server[0], &server[1]])?;
    Ok(relay)
}

fn address(host: &str) -> Result<SocketAddr> {
    let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    with_port.to_socket_addrs()?.next().with_context(|| format!("no address for {host}"))
}

/// Deploys the service in Python so that its container may signal the agent's.
fn deploy(namespace: &Namespace) -> Result<String> {
    let mut deployment = manifests::demo(manifests::PYTHON, 1, Agent::Baseline);
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 0});
    namespace.deploy(&deployment.to_string(), "demo")?;
    namespace.pod("demo")
}

/// Attaches, does `harm`, saves, and waits until the save is there and the attach has told what happened.
fn survives(harm: impl FnOnce(&Namespace, &str) -> Result<()>) -> Result<()> {
    in_namespace(|namespace| {
        let pod = deploy(namespace)?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (before)")?;
        harm(namespace, &pod)?;
        project.save(" (after)")?;
        for step in ["disconnected", "reconnecting", "reconnected"] {
            attach.event(step)?;
        }
        let pods: Vec<_> = namespace.pod("demo").into_iter().collect();
        save_arrives(namespace, &project, &pods, " (after)")?;
        namespace.run(&project, &["verify"])?.code(0)?;
        stop(attach)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_cut_connection_is_made_again() -> Result<()> {
    in_namespace(|namespace| {
        let pod = deploy(namespace)?;
        let relay = relay(namespace)?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        relay.cut();
        attach.event("disconnected")?;
        project.save(" (meanwhile)")?;
        // Several attempts fail first.
        attach.event_where("reconnecting", |event| event["attempt"].as_u64() >= Some(3))?;
        relay.resume();
        attach.event("reconnected")?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (meanwhile)")?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        stop(attach)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn an_api_server_that_hangs_is_noticed_and_found_again() -> Result<()> {
    in_namespace(|namespace| {
        let pod = deploy(namespace)?;
        let relay = relay(namespace)?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        relay.freeze();
        // Nobody says a word: only the client's own clock can tell.
        attach.event("disconnected")?;
        let said = namespace.run(&project, &["status"])?.code(0)?;
        ensure!(said.out.contains("DISCONNECTED"), "{said:?}");
        project.save(" (meanwhile)")?;
        relay.resume();
        attach.event("reconnected")?;
        save_arrives(namespace, &project, std::slice::from_ref(&pod), " (meanwhile)")?;
        namespace.run(&project, &["verify"])?.code(0)?;
        stop(attach)
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_killed_agent_is_found_again() -> Result<()> {
    const KILL: &str = "import os, pathlib, signal
for process in pathlib.Path('/proc').iterdir():
    if process.name.isdigit() and (process / 'comm').read_text() == 'devsync-agent\\n':
        os.kill(int(process.name), signal.SIGKILL)";
    survives(|namespace, pod| {
        namespace.kubectl.run(&["exec", pod, "--container", "app", "--", "python3", "-c", KILL]).map(|_| ())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_deleted_pods_replacement_has_what_the_laptop_has_and_the_mark() -> Result<()> {
    survives(|namespace, pod| {
        namespace.kubectl.run(&["delete", "pod", pod])?;
        namespace.rolled_out("demo")?;
        namespace.until("a mark on the new pod", || {
            let marks = namespace.pods("demo")?.first().map(|pod| pod["metadata"]["annotations"].clone());
            Ok(marks.filter(|marks| marks[contract::ATTACHED_BY].is_string()).map(|_| ()))
        })
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_credential_plugin_is_asked_once_for_an_attach() -> Result<()> {
    in_namespace(|namespace| {
        deploy(namespace)?;
        let calls = namespace.path("calls");
        plugin(namespace, &calls)?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        stop(attach)?;
        let calls = fs::read_to_string(&calls)?.lines().count();
        ensure!(calls == 1, "the plugin ran {calls} times");
        Ok(())
    })
}

/// The laptop's user logs in by a program that writes a line for each time it runs.
fn plugin(namespace: &Namespace, calls: &Path) -> Result<()> {
    let mut config = namespace.laptop.json(&["config", "view", "--raw"])?;
    let user = config["users"][0].clone();
    let data = |name: &str| user["user"][name].as_str().map(str::to_owned);
    let decoded = |name: &str| -> Result<Option<String>> {
        let Some(text) = data(name) else { return Ok(None) };
        let mut command = std::process::Command::new("base64");
        let mut child = command.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
        Ok(Some(String::from_utf8(child.wait_with_output()?.stdout)?))
    };
    let status = json!({"token": data("token"), "clientCertificateData": decoded("client-certificate-data")?,
                        "clientKeyData": decoded("client-key-data")?});
    let credential = json!({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": status});
    let (answer, program) = (namespace.path("credential.json"), namespace.path("plugin"));
    fs::write(&answer, credential.to_string())?;
    let text = format!("#!/bin/sh\necho asked >>{}\ncat {}\n", calls.display(), answer.display());
    fs::write(&program, text)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    // Not by `kubectl config`: one that was built with Go 1.18 and later walks into its own memory there.
    config["users"][0]["user"] = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1",
                                                 "command": program}});
    fs::write(namespace.laptop.kubeconfig(), config.to_string()).context("write the kubeconfig")
}
