//! The tests, by what they are about, and what they share.

mod bad;
mod customize;
mod demos;
mod ephemeral;
mod following;
mod large;
mod on_change;
mod python;
mod refused;
mod replicas;
mod reverse;
mod rust;
mod supervised;
mod workload;
mod workspace;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use devsync_tests::attach::Attach;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::{self, Namespace};
use devsync_tests::cluster::project::{Project, QUESTION, answer};

/// Runs a test in a namespace of its own.
pub(crate) fn in_namespace(test: impl FnOnce(&Namespace) -> Result<()>) -> Result<()> {
    namespace::with_namespace(programs()?, test)
}

/// Saves, and waits until a pod of `demo` answers accordingly.
fn save_arrives(namespace: &Namespace, project: &Project, pods: &[String], save: &str) -> Result<()> {
    project.save(save)?;
    pods.iter().try_for_each(|pod| namespace.answers(pod, QUESTION, &answer(save)))
}

/// Attaches with no flag and no file of settings to one pod of an image, saves twice, and leaves.
fn two_saves(image: &str, agent: Agent, copy: impl FnOnce(PathBuf) -> Result<Project>) -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(image, 1, agent).to_string(), "demo")?;
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
        ensure!(namespace.get(&pod, 8080, QUESTION)? == answer(" (two)"), "the app runs on");
        Ok(())
    })
}

/// Ends an attach as Ctrl-C does.
fn stop(attach: Attach) -> Result<()> {
    let code = attach.stop()?.code();
    ensure!(code == Some(0), "attach ended with {code:?}");
    Ok(())
}

/// The directory of the programs of this build: the one above this test's own.
pub(super) fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let programs = test.ancestors().nth(2).context("a test lies in target/…/deps")?.to_owned();
    ensure!(programs.join("devsync").exists(), "no devsync here: cargo build --workspace --bins");
    Ok(programs)
}
