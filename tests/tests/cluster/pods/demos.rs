//! Services in the ways that people build them, attached to from their source directory without a flag or a file.

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use std::path::PathBuf;

use super::{in_namespace, save_arrives, stop};

fn two_saves(image: &str, copy: impl FnOnce(PathBuf) -> Result<Project>) -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(image, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(""));
        let project = copy(namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        for save in [" (one)", " (two)"] {
            save_arrives(namespace, &project, std::slice::from_ref(&pod), save)?;
        }
        namespace.run(&project, &["verify"])?.code(0)?;
        stop(attach)?;
        namespace.run(&project, &["verify", "deploy/demo"])?.code(0)?;
        ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_of_what_node_runs_arrives_though_git_ignores_it() -> Result<()> {
    two_saves(manifests::NODE, Project::node)
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_a_package_in_site_packages() -> Result<()> {
    two_saves(manifests::PYTHON_PACKAGE, Project::package)
}
