//! Apps that `devsync inject` put under devsync-run, in an image that has nothing but the app.

use std::fs;

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::{in_namespace, save_arrives, stop};

/// The service in Rust from an image of its file alone, its command stated.
pub(super) fn scratch() -> Value {
    let mut demo = manifests::demo(manifests::RUST, 1, Agent::Absent);
    demo["spec"]["template"]["spec"]["containers"][0]["command"] = json!(["/app/adder"]);
    demo
}

/// Changes the project's source by hand.
pub(super) fn edit(project: &Project, old: &str, new: &str) -> Result<()> {
    let source = project.dir.join("src/main.rs");
    let text = fs::read_to_string(&source)?;
    ensure!(text.contains(old), "no {old:?} in the source");
    Ok(fs::write(&source, text.replace(old, new))?)
}

/// Waits for the pod whose app devsync-run holds until its first sync.
pub(super) fn holding(namespace: &Namespace) -> Result<String> {
    let pod = namespace.until("a pod whose containers run", || {
        let Some(pod) = namespace.pods("demo")?.into_iter().next() else { return Ok(None) };
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let run = statuses.len() == 2 && statuses.iter().all(|s| !s["state"]["running"].is_null());
        Ok(run.then_some(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()))
    })?;
    namespace.until("word that it waits", || {
        let log = namespace.kubectl.run(&["logs", &pod, "--container", "app"])?;
        Ok(log.contains("is not started before its first sync").then_some(()))
    })?;
    Ok(pod)
}

fn crashes_and_serves(namespace: &Namespace) -> Result<()> {
    namespace.apply_injected(&scratch().to_string(), &["--restart", "supervise"])?;
    namespace.rolled_out("demo")?;
    let pod = namespace.pod("demo")?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
    let attached = attach.event("attached")?;
    ensure!(attached["restart"] == "supervise", "{attached}");
    attach.event("synced")?;
    save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
    edit(&project, "fn main() {", "fn main() {\n    panic!(\"a bad save\");")?;
    // One that crashes at once was not restarted, one that crashes after a moment was.
    let told =
        attach.any_event_where(&["note", "restart_failed"], |e| e.to_string().contains("a bad save"))?;
    ensure!(told["hint"].as_str().is_some_and(|hint| hint.contains("the next save")), "{told}");
    stop(attach)?;
    // Who comes later is told too.
    let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
    let note = attach.event_where("note", |e| e.to_string().contains("a bad save"))?;
    ensure!(note["text"].as_str().is_some_and(|text| text.contains("status 101")), "{note}");
    attach.first_sync()?;
    save_arrives(namespace, &project, std::slice::from_ref(&pod), " (two)")?;
    stop(attach)?;
    ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
    ensure!(namespace.restarts("demo")? == 0, "a container was started again");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn a_bad_save_is_shown_and_the_next_one_serves_in_the_same_container() -> Result<()> {
    in_namespace(crashes_and_serves)
}

#[test]
#[ignore = "needs: cluster"]
fn an_app_that_waits_is_started_by_its_first_sync() -> Result<()> {
    in_namespace(|namespace| {
        namespace.apply_injected(&scratch().to_string(), &["--wait"])?;
        let pod = holding(namespace)?;
        ensure!(namespace.get(&pod, 8080, QUESTION).is_err(), "it runs already");
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        project.save(" (first)")?;
        let mut attach = namespace.attach(&project, &["attach", &format!("pod/{pod}")])?;
        attach.event_where("note", |e| e.to_string().contains("is waiting for its first sync"))?;
        namespace.answers(&pod, QUESTION, &answer(" (first)"))?;
        stop(attach)?;
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}
