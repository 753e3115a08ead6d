//! `devsync doctor` on pods: all is well where it is, and else what is wrong with what mends it.

use anyhow::{Context, Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::project::Project;
use devsync_tests::cluster::said::Said;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

use super::in_namespace;

/// Every finding, with its part's name.
fn findings(said: &Said) -> Result<Vec<(String, Value)>> {
    let told: Value = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
    let parts = told["parts"].as_array().context("parts")?;
    let of = |part: &Value| -> Vec<(String, Value)> {
        let name = part["part"].as_str().unwrap_or_default().to_owned();
        let found = part["findings"].as_array().into_iter().flatten();
        found.map(|finding| (name.clone(), finding.clone())).collect()
    };
    Ok(parts.iter().flat_map(of).collect())
}

fn of_level<'f>(found: &'f [(String, Value)], level: &str) -> Vec<&'f (String, Value)> {
    found.iter().filter(|(_, finding)| finding["level"] == level).collect()
}

/// Nobody promises a webhook here.
fn unlabelled(namespace: &Namespace) -> Result<()> {
    let label = format!("{}-", contract::INJECT);
    namespace.kubectl.run(&["label", "namespace", &namespace.name, &label]).map(drop)
}

#[test]
#[ignore = "needs: cluster"]
fn a_healthy_pod_is_well_from_the_laptop_to_the_app() -> Result<()> {
    in_namespace(|namespace| {
        unlabelled(namespace)?;
        namespace.deploy(&manifests::demo(manifests::PYTHON, 1, Agent::Baseline).to_string(), "demo")?;
        let pod = namespace.pod("demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let said = namespace.run(&project, &["doctor", "deploy/demo"])?.code(0)?;
        let parts = ["laptop\n", "cluster (context ", "deploy/demo\n", "container app of pod/"];
        for word in parts.into_iter().chain([pod.as_str(), "reexec: in place, by tracing; tried"]) {
            ensure!(said.out.contains(word), "no {word:?} in {said:?}");
        }
        let said = namespace.run(&project, &["doctor", "deploy/demo", "-o", "json"])?.code(0)?;
        let found = findings(&said)?;
        ensure!(of_level(&found, "problem").is_empty(), "{found:#?}");
        for (part, topic) in [
            ("laptop", "kubeconfig"),
            ("cluster", "server"),
            ("deploy/demo", "pods"),
            ("container", "restart"),
        ] {
            let of_part = |(name, finding): &&(String, Value)| {
                name.starts_with(part) && finding["topic"] == topic && finding["level"] == "ok"
            };
            ensure!(found.iter().any(|one| of_part(&one)), "no {topic} of {part} in {found:#?}");
        }
        ensure!(namespace.pod("demo")? == pod && namespace.restarts("demo")? == 0, "something was changed");
        Ok(())
    })
}

/// A restricted agent that has not the app's ids may do nothing, and a labelled namespace has no webhook.
fn is_told(namespace: &Namespace) -> Result<()> {
    let mut demo = manifests::demo(manifests::PYTHON, 1, Agent::Restricted);
    let containers = &mut demo["spec"]["template"]["spec"]["containers"];
    containers[1]["securityContext"]["runAsUser"] = json!(65531);
    containers[1]["securityContext"]["runAsGroup"] = json!(65531);
    namespace.deploy(&demo.to_string(), "demo")?;
    let project = Project::copy(Language::Python, namespace.path("adder"))?;
    let said = namespace.run(&project, &["doctor", "deploy/demo"])?.code(1)?;
    for word in ["problem  webhook", "devsync install", "problem  root", "runAsUser: 65532", "fix: "] {
        ensure!(said.out.contains(word), "no {word:?} in {said:?}");
    }
    let said = namespace.run(&project, &["doctor", "deploy/demo", "-o", "json"])?.code(1)?;
    let found = findings(&said)?;
    let problems = of_level(&found, "problem");
    ensure!(problems.len() == 2, "{problems:#?}");
    ensure!(problems.iter().all(|(_, finding)| finding["fix"].is_string()), "{problems:#?}");
    // What does not exist is a problem of its own, and the rest is told all the same.
    let gone = namespace.run(&project, &["doctor", "deploy/dmeo"])?.code(1)?;
    ensure!(gone.out.contains("there is no deploy/dmeo") && gone.out.contains("deploy/demo"), "{gone:?}");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn what_is_wrong_is_told_with_what_mends_it() -> Result<()> {
    in_namespace(is_told)
}
