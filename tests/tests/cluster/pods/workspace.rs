//! Workspace volumes: where an app's user may write nothing.

use anyhow::{Result, ensure};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;
use serde_json::json;

use super::supervised::scratch;
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

fn is_edited(namespace: &Namespace, more: &[&str]) -> Result<()> {
    let words = [&["--level", "restricted", "--workspace", "/app"], more].concat();
    namespace.apply_injected(&restricted(), &words)?;
    namespace.rolled_out("demo")?;
    let pod = namespace.pod("demo")?;
    ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(""), "the image's program serves from the volume");
    let project = Project::copy(Language::Rust, namespace.path("adder"))?;
    let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
    attach.first_sync()?;
    save_arrives(namespace, &project, std::slice::from_ref(&pod), " (one)")?;
    namespace.run(&project, &["verify", "deploy/demo"])?.code(0)?;
    ensure!(namespace.restarts("demo")? == 0, "a container was started again");
    stop(attach)
}

#[test]
#[ignore = "needs: cluster"]
fn a_restricted_app_from_scratch_with_root_s_files_is_edited() -> Result<()> {
    in_namespace(|namespace| is_edited(namespace, &[]))
}

#[test]
#[ignore = "needs: cluster"]
fn the_same_under_devsync_run() -> Result<()> {
    in_namespace(|namespace| is_edited(namespace, &["--restart", "supervise"]))
}
