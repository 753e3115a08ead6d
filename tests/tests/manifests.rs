//! The webhook's manifests: the Helm chart has what the kustomize base has, and its schema refuses what is wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn manifests(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(path)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple::<Value>(text)?.into_iter().filter(|value| !value.is_null()).collect())
}

/// What tells objects apart.
fn name(object: &Value) -> String {
    format!("{} {}", object["kind"], object["metadata"]["name"])
}

fn base() -> Result<Vec<Value>> {
    let list = std::fs::read_to_string(manifests("base/kustomization.yaml"))?;
    let list: Value = serde_saphyr::from_str(&list)?;
    let mut all = Vec::new();
    for file in list["resources"].as_array().context("resources")? {
        let file = manifests("base").join(file.as_str().context("a file")?);
        all.extend(documents(&std::fs::read_to_string(file)?)?);
    }
    Ok(all)
}

/// The chart with its own values and those of `change`, by text/template and sprig, which Helm uses too.
fn chart(namespace: &str, versions: &[&str], change: impl FnOnce(&mut Value)) -> Result<Vec<Value>> {
    let mut values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(manifests("helm/devsync/values.yaml"))?)?;
    change(&mut values);
    let mut go = Command::new("go");
    go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").arg("run");
    go.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("helm/render.go"));
    go.arg(manifests("helm/devsync")).arg(namespace).args(versions);
    let mut child =
        go.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start go")?;
    child.stdin.take().context("stdin is piped")?.write_all(values.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout)?)
}

fn named<'a>(all: &'a [Value], kind: &str) -> Result<&'a Value> {
    all.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
}

#[test]
#[ignore = "needs: go and sprig (golang-go, golang-github-masterminds-sprig-dev)"]
fn the_chart_renders_to_the_base() -> Result<()> {
    let mut base = base()?;
    // Helm makes the namespace itself.
    base.retain(|object| object["kind"] != "Namespace");
    let mut chart = chart("devsync-system", &["policy/v1"], |_| ())?;
    base.sort_by_key(name);
    chart.sort_by_key(name);
    ensure!(base.iter().map(name).eq(chart.iter().map(name)), "other objects");
    // The configuration is YAML in YAML: its meaning is compared.
    for all in [&mut base, &mut chart] {
        for map in all.iter_mut().filter(|object| object["kind"] == "ConfigMap") {
            let text = map["data"]["config.yaml"].as_str().context("a configuration")?;
            map["data"]["config.yaml"] = serde_saphyr::from_str(text)?;
        }
    }
    for (ours, theirs) in base.iter().zip(&chart) {
        ensure!(ours == theirs, "{}\nbase  {ours:#}\nchart {theirs:#}", name(ours));
    }
    Ok(())
}

#[test]
#[ignore = "needs: go and sprig (golang-go, golang-github-masterminds-sprig-dev)"]
fn values_of_the_chart_arrive() -> Result<()> {
    let chart = chart("team-a", &[], |values| {
        values["replicas"] = json!(3);
        values["onlyNamespaces"] = json!({"team": "a"});
        values["imagePullSecrets"] = json!(["login"]);
        values["extraArgs"] = json!(["--certificate-days=10"]);
        values["certificates"]["existingSecret"] = json!("theirs");
        values["networkPolicy"] = json!(false);
    })?;
    ensure!(named(&chart, "NetworkPolicy").is_err() && named(&chart, "Secret").is_err());
    ensure!(named(&chart, "PodDisruptionBudget")?["apiVersion"] == "policy/v1beta1");
    let deployment = &named(&chart, "Deployment")?["spec"];
    let pod = &deployment["template"]["spec"];
    ensure!(deployment["replicas"] == 3 && pod["imagePullSecrets"] == json!([{"name": "login"}]));
    let args = json!(["--webhook=devsync-injector-team-a", "--tls-dir=/tls", "--certificate-days=10"]);
    ensure!(pod["containers"][0]["args"] == args, "{pod:#}");
    ensure!(pod["volumes"][0]["secret"]["secretName"] == "theirs");
    let webhook = named(&chart, "MutatingWebhookConfiguration")?;
    ensure!(webhook["metadata"]["name"] == "devsync-injector-team-a");
    ensure!(webhook.to_string().contains(r#"{"key":"team","operator":"In","values":["a"]}"#));
    Ok(())
}

/// What a JSON Schema validator, the one of Debian, says of the chart's values.
fn judged(change: impl FnOnce(&mut Value)) -> Result<Result<(), String>> {
    let mut values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(manifests("helm/devsync/values.yaml"))?)?;
    change(&mut values);
    let script = "import json, sys, jsonschema\n\
                  schema = json.load(open(sys.argv[1]))\n\
                  jsonschema.Draft7Validator.check_schema(schema)\n\
                  errors = jsonschema.Draft7Validator(schema).iter_errors(json.load(sys.stdin))\n\
                  print('\\n'.join(error.message for error in errors), end='')";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script]).arg(manifests("helm/devsync/values.schema.json"));
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start python3")?;
    child.stdin.take().context("stdin is piped")?.write_all(values.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the validator ended with {}", output.status);
    let said = String::from_utf8(output.stdout)?;
    Ok(if said.is_empty() { Ok(()) } else { Err(said) })
}

#[test]
#[ignore = "needs: python3-jsonschema"]
fn the_chart_s_schema_takes_its_own_values_and_refuses_wrong_ones() -> Result<()> {
    judged(|_| ())?.map_err(|said| anyhow::anyhow!("its own values: {said}"))?;
    judged(|values| values["onlyNamespaces"] = json!({"team": "a"}))?
        .map_err(|said| anyhow::anyhow!(said))?;
    let wrong: [(&str, Value, &str); 6] = [
        ("/image", json!(""), "''"),
        ("/replicas", json!(0), "0 is less than"),
        ("/replicas", json!("2"), "'2' is not of type"),
        ("/imagePullPolicy", json!("Sometimes"), "Sometimes"),
        ("/networkPolicy", json!("yes"), "'yes' is not of type"),
        ("/config", json!({}), "'agentImage' is a required property"),
    ];
    for (place, value, words) in wrong {
        let said = judged(|values| {
            if let Some(field) = values.pointer_mut(place) {
                *field = value;
            }
        })?;
        ensure!(said.as_ref().is_err_and(|said| said.contains(words)), "{place}: {said:?}");
    }
    let said = judged(|values| values["replica"] = json!(3))?;
    ensure!(said.as_ref().is_err_and(|said| said.contains("'replica' was unexpected")), "{said:?}");
    Ok(())
}
