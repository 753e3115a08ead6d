//! Every golden pair of the injector against a real API server: what devsync makes of an object that the server takes,
//! the server takes too. Dry runs only; nothing is made.

#[path = "../../../injector/tests/golden/cases.rs"]
#[allow(unreachable_pub, dead_code)]
mod cases;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::namespace::Namespace;
use serde_json::{Value, json};

use super::pods::in_namespace;

/// The objects of a pair under names of their own, so that an answer says whose it is.
fn objects(name: &str, object: &Value, is_offered: &BTreeMap<String, bool>) -> Vec<(String, Value)> {
    let items = object["items"].as_array().cloned().unwrap_or_else(|| vec![object.clone()]);
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(number, item)| {
            let name = format!("{name}-{number}");
            let mut item = offered(item, is_offered);
            item["metadata"]["name"] = json!(name);
            if let Some(metadata) = item["metadata"].as_object_mut() {
                metadata.remove("uid");
                metadata.remove("generateName");
            }
            (name, item)
        })
        .collect()
}

/// Kinds that this server has in no such version are judged by a pod of their template.
fn offered(object: Value, is_offered: &BTreeMap<String, bool>) -> Value {
    let kind = format!("{}/{}", object["apiVersion"], object["kind"]);
    if is_offered.get(&kind) != Some(&false) {
        return object;
    }
    let template = object["spec"]["jobTemplate"]["spec"]["template"].clone();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]})
}

fn cron_jobs(namespace: &Namespace) -> BTreeMap<String, bool> {
    let versions = ["batch/v1", "batch/v1beta1"];
    let has = |version: &str| {
        let answer = namespace.kubectl.raw(&format!("/apis/{version}")).unwrap_or_default();
        answer.contains("\"cronjobs\"")
    };
    versions.into_iter().map(|version| (format!("\"{version}\"/\"CronJob\""), has(version))).collect()
}

/// What the server says against each object, by its name; nothing where it takes it.
fn refusals(namespace: &Namespace, objects: &[(String, Value)]) -> Result<BTreeMap<String, String>> {
    let items: Vec<&Value> = objects.iter().map(|(_, object)| object).collect();
    let file = namespace.path("objects.json");
    fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let file = file.to_str().context("a path in UTF-8")?;
    let words = ["create", "--dry-run=server", "--validate=false", "--output=name", "--filename", file];
    let output = namespace.kubectl.command(&words).output()?;
    let taken = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_taken = |name: &str| taken.lines().any(|line| line.rsplit('/').next() == Some(name));
    let refused = objects.iter().filter(|(name, _)| !is_taken(name));
    let about =
        |name: &str| said.lines().filter(|line| line.contains(&format!("\"{name}\""))).collect::<Vec<_>>();
    Ok(refused.map(|(name, _)| (name.clone(), about(name).join("\n"))).collect())
}

#[test]
#[ignore = "needs: cluster"]
fn every_golden_output_is_taken_by_the_api_server() -> Result<()> {
    in_namespace(|namespace| {
        let is_offered = cron_jobs(namespace);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for case in cases::all() {
            before.extend(objects(&case.name, &case.input, &is_offered));
            after.extend(objects(&case.name, &case.output(), &is_offered));
        }
        let refused_before = refusals(namespace, &before)?;
        let refused_after = refusals(namespace, &after)?;
        let new: Vec<_> =
            refused_after.iter().filter(|(name, _)| !refused_before.contains_key(*name)).collect();
        ensure!(new.is_empty(), "refused with devsync, and taken without: {new:#?}");
        // Otherwise the comparison would say nothing.
        ensure!(refused_before.len() * 20 < before.len(), "the inputs are no good: {refused_before:#?}");
        eprintln!(
            "{} of {} objects taken; not the inputs {refused_before:#?}",
            after.len() - refused_after.len(),
            after.len()
        );
        Ok(())
    })
}
