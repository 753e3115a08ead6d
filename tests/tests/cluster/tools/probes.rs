//! A debugger that holds an app with a liveness probe: as the team wrote it the kubelet ends the app, which devsync says
//! beforehand; as the injector relaxes it the app lives on.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent, TOOLBOX_IMAGE};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::debugger::Debug;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

/// Failures that the team's probe permits.
const THRESHOLD: u64 = 2;

/// Injects a demo whose liveness is asked every second.
fn deploy(namespace: &Namespace, probes: &str) -> Result<()> {
    let mut demo = manifests::demo(manifests::RUST, 1, Agent::Absent);
    let template = &mut demo["spec"]["template"];
    template["metadata"]["annotations"] =
        json!({contract::annotation::AGENT_IMAGE: TOOLBOX_IMAGE, contract::annotation::PROBES: probes});
    template["spec"]["containers"][0]["livenessProbe"] = json!({
        "httpGet": {"path": "/add/1/1", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1,
        "failureThreshold": THRESHOLD,
    });
    namespace.apply_injected(&demo.to_string(), &[])?;
    namespace.rolled_out("demo")
}

/// A gdb that holds the app until it is told to go.
fn hold(debug: &Debug) -> Result<Child> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-iex", "set sysroot", "-ex"]);
    gdb.arg(format!("target remote 127.0.0.1:{}", debug.port));
    Ok(gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn let_go(mut gdb: Child) -> Result<()> {
    gdb.stdin.take().context("piped")?.write_all(b"detach\nquit\n")?;
    gdb.wait()?;
    Ok(())
}

/// How often the kubelet found the app's liveness wanting.
fn failures(namespace: &Namespace) -> Result<u64> {
    let events = namespace.kubectl.json(&["get", "events", "--field-selector", "reason=Unhealthy"])?;
    let events = events["items"].as_array().context("a list")?;
    let of = |event: &Value| event["message"].as_str().is_some_and(|m| m.starts_with("Liveness"));
    Ok(events.iter().filter(|event| of(event)).filter_map(|event| event["count"].as_u64()).sum())
}

fn probes(namespace: &Namespace) -> Result<()> {
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let start = || Debug::start(namespace.command(&project, &Debug::words("deploy/demo", &[])));

    deploy(namespace, "keep")?;
    let mut command = namespace.command(&project, &["debug", "deploy/demo", "--once", "--port", "0"]);
    let mut shown = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(shown.stderr.take().context("piped")?),
        &mut said,
    )?;
    shown.kill()?;
    shown.wait()?;
    ensure!(said.contains("the kubelet end it once it is stopped for about 2 s"), "{said}");
    let debug = start()?;
    let gdb = hold(&debug)?;
    namespace
        .until("container that the kubelet ended", || Ok((namespace.restarts("demo")? > 0).then_some(())))?;
    let_go(gdb)?;
    drop(debug);

    deploy(namespace, "relax")?;
    let before = failures(namespace)?;
    let debug = start()?;
    let gdb = hold(&debug)?;
    namespace.until("more failures than the team's probe permits", || {
        Ok((failures(namespace)? > before + THRESHOLD).then_some(()))
    })?;
    let_go(gdb)?;
    debug.ends_well()?;
    namespace.answers(&namespace.pod("demo")?, QUESTION, &answer(""))?;
    ensure!(namespace.restarts("demo")? == 0, "the kubelet ended a container");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn relaxed_probes_bear_a_debugger_and_a_teams_own_are_told_of() -> Result<()> {
    in_namespace(probes)
}
