//! A debugger that holds an app with a liveness probe: as the team wrote it the kubelet ends the app, which devsync says
//! beforehand; as the injector relaxes it the app lives on.

use std::io::{BufRead, BufReader, Write};
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

/// Injects a demo whose liveness is asked every second.
fn deploy(namespace: &Namespace, probes: &str) -> Result<()> {
    let mut demo = manifests::demo(manifests::RUST, 1, Agent::Absent);
    let template = &mut demo["spec"]["template"];
    template["metadata"]["annotations"] =
        json!({contract::annotation::AGENT_IMAGE: TOOLBOX_IMAGE, contract::annotation::PROBES: probes});
    template["spec"]["containers"][0]["livenessProbe"] = json!({
        "httpGet": {"path": "/add/1/1", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 1,
        "failureThreshold": 2,
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

/// Whether the kubelet has ended the app for its liveness.
fn is_ended(namespace: &Namespace) -> Result<bool> {
    let events = namespace.kubectl.json(&["get", "events", "--field-selector", "reason=Killing"])?;
    let events = events["items"].as_array().context("a list")?;
    let of = |event: &Value| event["message"].as_str().is_some_and(|m| m.contains("failed liveness probe"));
    Ok(events.iter().any(of))
}

/// How often the kubelet found the app's liveness wanting.
fn failures(namespace: &Namespace) -> Result<u64> {
    let events = namespace.kubectl.json(&["get", "events", "--field-selector", "reason=Unhealthy"])?;
    let events = events["items"].as_array().context("a list")?;
    let of = |event: &Value| event["message"].as_str().is_some_and(|m| m.starts_with("Liveness"));
    Ok(events.iter().filter(|event| of(event)).filter_map(|event| event["count"].as_u64()).sum())
}

fn are_told_of(namespace: &Namespace) -> Result<()> {
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    deploy(namespace, "keep")?;
    let mut command = namespace.command(&project, &["debug", "deploy/demo", "--once", "--port", "0"]);
    let mut shown = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(shown.stderr.take().context("piped")?).read_line(&mut said)?;
    shown.kill()?;
    shown.wait()?;
    ensure!(said.contains("the kubelet end it once it is stopped for about 2 s"), "{said}");
    let debug = Debug::start(namespace.command(&project, &Debug::words("deploy/demo", &[])))?;
    let gdb = hold(&debug)?;
    // A process that is traced stays until its tracer has seen its end, and the container with it.
    namespace.until("end by the kubelet", || Ok(is_ended(namespace)?.then_some(())))?;
    let_go(gdb)
}

fn are_relaxed(namespace: &Namespace) -> Result<()> {
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    deploy(namespace, "relax")?;
    let debug = Debug::start(namespace.command(&project, &Debug::words("deploy/demo", &[])))?;
    let gdb = hold(&debug)?;
    // One that is relaxed takes longer to fail than the team's has patience.
    namespace.until("failure of the probe", || Ok((failures(namespace)? > 0).then_some(())))?;
    let_go(gdb)?;
    debug.ends_well()?;
    namespace.answers(&namespace.pod("demo")?, QUESTION, &answer(""))?;
    ensure!(namespace.restarts("demo")? == 0, "the kubelet ended a container");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn a_teams_own_probes_are_told_of_and_end_a_held_app() -> Result<()> {
    in_namespace(are_told_of)
}

#[test]
#[ignore = "needs: cluster"]
fn relaxed_probes_bear_a_debugger() -> Result<()> {
    in_namespace(are_relaxed)
}
