//! Workspace volumes: where an app's user may write nothing, and what outlives a container.

use anyhow::{Result, ensure};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;
use serde_json::json;

use super::supervised::{edit, holding, scratch};
use super::{in_namespace, save_arrives, stop};

/// As the restricted level asks, with a root that nobody writes, and files that belong to root.
fn restricted() -> String {
    let mut demo = scratch();
    demo["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    demo.to_string()
}

/// A program that can be told to end, as no image had it.
const END: &str = "if path == \"/end\" {
        std::process::exit(0);
    }
    if path == \"/mortal\" {
        return (\"200 OK\", \"yes\".to_string());
    }
    let mut parts = path";

fn outlives_its_container(
    namespace: &Namespace,
    more: &[&str],
    first: impl Fn() -> Result<String>,
) -> Result<()> {
    let words = [&["--level", "restricted", "--workspace", "/app"], more].concat();
    namespace.apply_injected(&restricted(), &words)?;
    let pod = first()?;
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let mut attach = namespace.attach(&project, &["attach", &format!("pod/{pod}")])?;
    attach.event("attached")?;
    save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
    edit(&project, "let mut parts = path", END)?;
    namespace.answers(&pod, "/mortal", "yes")?;
    namespace.run(&project, &["verify", &format!("pod/{pod}")])?.code(0)?;
    stop(attach)?;
    ensure!(namespace.restarts("demo")? == 0, "a container was started again");
    // Nobody is attached: what comes back is what lies in the volume. The question has no answer.
    let _ = namespace.get(&pod, 8080, "/end");
    namespace.until("another container", || Ok((namespace.restarts("demo")? > 0).then_some(())))?;
    namespace.answers(&pod, QUESTION, &answer(" (one)"))?;
    ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
    let mut attach = namespace.attach(&project, &["attach", &format!("pod/{pod}")])?;
    attach.event("attached")?;
    save_arrives(namespace, &project, std::slice::from_ref(&pod), " (two)")?;
    stop(attach)
}

/// The image's program serves from the volume.
fn serves(namespace: &Namespace) -> Result<String> {
    namespace.rolled_out("demo")?;
    let pod = namespace.pod("demo")?;
    ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(""));
    Ok(pod)
}

#[test]
#[ignore = "needs: cluster"]
fn a_restricted_app_from_scratch_with_root_s_files_is_edited_and_outlives_its_container() -> Result<()> {
    in_namespace(|namespace| outlives_its_container(namespace, &[], || serves(namespace)))
}

#[test]
#[ignore = "needs: cluster"]
fn the_same_under_devsync_run() -> Result<()> {
    in_namespace(|namespace| {
        outlives_its_container(namespace, &["--restart", "supervise"], || serves(namespace))
    })
}

#[test]
#[ignore = "needs: cluster"]
fn the_same_after_waiting_for_its_first_sync() -> Result<()> {
    in_namespace(|namespace| outlives_its_container(namespace, &["--wait"], || holding(namespace)))
}
