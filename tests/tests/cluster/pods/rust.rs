//! One static executable alone in its image, changed while its pod runs.

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::project::{Project, QUESTION, answer};
use devsync_tests::demo::project::Language;

use super::{in_namespace, save_arrives, stop};

/// Attaches with no flag and no file of settings, and saves twice.
fn two_saves(image: &str, agent: Agent) -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(image, 1, agent).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(""));
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo"])?;
        attach.first_sync()?;
        for save in [" (one)", " (two)"] {
            save_arrives(namespace, &project, std::slice::from_ref(&pod), save)?;
        }
        namespace.run(&project, &["verify"])?.code(0)?;
        stop(attach)?;
        ensure!(namespace.pod("demo")? == pod, "the pod was replaced");
        ensure!(namespace.restarts("demo")? == 0, "a container was started again");
        ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(" (two)"), "the app runs on");
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_an_image_from_scratch_beside_a_root_agent() -> Result<()> {
    two_saves(manifests::RUST, Agent::Baseline)
}

#[test]
#[ignore = "needs: cluster"]
fn a_save_reaches_an_app_whose_agent_has_no_right_that_the_app_lacks() -> Result<()> {
    two_saves(manifests::RUST_OWNED, Agent::Restricted)
}
