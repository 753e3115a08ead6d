//! Commands of `[[on_change]]` in a pod: between the files and the restart, in the app's container.

use std::fs;

use anyhow::{Context, Result, ensure};
use devsync_tests::attach::Attach;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;
use serde_json::Value;

use super::{in_namespace, stop};

/// What pip is elsewhere: says what it does, refuses what is empty, and leaves what it made where the app's user may.
const SETTINGS: &str = "[[on_change]]
paths = ['requirements.txt']
run = ['sh', '-c', 'echo installing as $(id -u); test -s requirements.txt && cp requirements.txt /tmp/installed']
";

/// The events after the first sync, up to one of this name.
fn until(attach: &Attach, name: &str) -> Result<Vec<Value>> {
    let mut said: Vec<Value> = Vec::new();
    while said.last().is_none_or(|event| event["event"] != name) {
        let line = attach.events.recv_timeout(devsync_tests::cluster::namespace::PATIENCE);
        said.push(serde_json::from_str(&line.with_context(|| format!("no {name} in {said:?}"))?)?);
    }
    Ok(said)
}

fn names(events: &[Value]) -> Vec<&str> {
    let names = events.iter().filter_map(|event| event["event"].as_str());
    names.filter(|name| *name != "synced").collect()
}

fn installs(namespace: &Namespace) -> Result<()> {
    namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
    let pod = namespace.pod("demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    fs::write(project.dir.join("devsync.toml"), SETTINGS)?;
    let requirements = project.dir.join("requirements.txt");
    let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
    attach.first_sync()?;
    fs::write(&requirements, "flask\n")?;
    let said = until(&attach, "ready")?;
    let order = ["command_started", "command_output", "command_ended", "restarted", "ready"];
    ensure!(names(&said) == order, "{said:#?}");
    ensure!(said.iter().any(|event| event["line"] == "installing as 65532"), "{said:#?}");
    let restarted = said.iter().find(|event| event["event"] == "restarted").context("one")?;
    ensure!(restarted["old_pid"] == restarted["new_pid"], "{restarted}");
    let installed = || namespace.kubectl.run(&["exec", &pod, "-c", "app", "--", "cat", "/tmp/installed"]);
    ensure!(installed()?.trim() == "flask");
    // One that fails keeps the old process, whatever else is saved.
    fs::write(&requirements, "")?;
    let failed = until(&attach, "command_failed")?;
    let told = failed.last().context("one")?;
    ensure!(told["cause"] == "it ended with exit code 1" && told["hint"].is_string(), "{told}");
    project.save(" (two)")?;
    let more = until(&attach, "command_failed")?;
    ensure!(![failed, more].concat().iter().any(|event| event["event"] == "restarted"), "it was restarted");
    ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(""), "the old process serves");
    fs::write(&requirements, "django\n")?;
    until(&attach, "ready")?;
    namespace.answers(&pod, QUESTION, &answer(" (two)"))?;
    ensure!(installed()?.trim() == "django");
    stop(attach)?;
    ensure!(namespace.restarts("demo")? == 0, "a container was started again");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn a_command_runs_in_the_container_and_one_that_fails_keeps_the_old_process() -> Result<()> {
    in_namespace(installs)
}
