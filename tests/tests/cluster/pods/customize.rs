//! The ways of docs/guides/customize.md with the real programs, and the demo application's environments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use devsync_tests::cluster::manifests::{self, AGENT_IMAGE, Agent};
use devsync_tests::cluster::namespace::Namespace;
use devsync_tests::cluster::said::Said;
use serde_json::json;

use super::{in_namespace, programs};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the page says in its blocks of `sh`.
fn commands(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    format!("set -euo pipefail\n{}", blocks.collect::<Vec<_>>().join("\n"))
}

#[test]
#[ignore = "needs: cluster"]
fn the_page_s_commands_do_what_it_says() -> Result<()> {
    in_namespace(|namespace| {
        let page = fs::read_to_string(root().join("docs/guides/customize.md"))?;
        let dir = tempfile::tempdir()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-c", &commands(&page)])
            .current_dir(dir.path())
            .env("PATH", format!("{}:{path}", programs()?.display()))
            .env("DEVSYNC", root())
            .env("KUBECONFIG", namespace.kubectl.kubeconfig())
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for (file, has) in [
            ("injected.yaml", true),
            ("injected.json", true),
            ("workspace.yaml", true),
            ("dev.yaml", true),
            ("changed.yaml", true),
            ("ejected.yaml", false),
            ("production.yaml", false),
        ] {
            let text = fs::read_to_string(dir.path().join(file))?;
            ensure!(text.contains("devsync-agent") == has, "{file}: {text}");
        }
        Ok(())
    })
}

fn rendered(namespace: &Namespace, environment: &str) -> Result<String> {
    let overlay = root().join("manifests/demo/overlays").join(environment);
    let output = namespace.kubectl.command(&["kustomize".as_ref(), overlay.as_os_str()]).output()?;
    ensure!(output.status.success(), "{environment}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
#[ignore = "needs: cluster"]
fn only_local_and_dev_have_devsync_and_production_refuses_it() -> Result<()> {
    in_namespace(|namespace| {
        for (environment, replicas, tag) in
            [("local", 1, "dev"), ("dev", 1, "dev"), ("staging", 2, "1.0.0"), ("production", 3, "1.0.0")]
        {
            let text = rendered(namespace, environment)?;
            for word in [
                format!("ENVIRONMENT: {environment}"),
                format!("replicas: {replicas}"),
                format!("localhost/devsync-demo-rust:{tag}"),
                format!("localhost/devsync-demo-python:{tag}"),
            ] {
                ensure!(text.contains(&word), "{environment} has no {word:?}");
            }
            let asks = text.contains("devsync.dev/inject: enabled");
            ensure!(asks == matches!(environment, "local" | "dev"), "{environment}: {text}");
            ensure!(!text.contains("devsync-agent") && !text.contains("shareProcessNamespace"), "{text}");
            let (injected, said) = namespace.injected(&text, &[])?;
            let refusals = said.matches("warning: deployment/adder-").count();
            let told = said.contains("left as it was") && said.contains("devsync.dev/inject: disabled");
            ensure!(told == (environment == "production"), "{environment}: {said}");
            ensure!(!told || refusals == 2, "{said}");
            ensure!((injected == text) == (environment == "production"), "{environment}: {injected}");
            namespace.kubectl.feed(&["apply", "--dry-run=server"], &injected)?;
        }
        Ok(())
    })
}

/// `devsync inject --apply WORD…` of a manifest.
fn applied(namespace: &Namespace, manifest: &str, words: &[&str]) -> Result<Said> {
    let file = namespace.path("applied.json");
    fs::write(&file, manifest)?;
    let file = file.to_string_lossy();
    let all = [&["inject", "--agent-image", AGENT_IMAGE, "-f", &*file, "--apply"], words].concat();
    let mut command = namespace.devsync.command(&namespace.path(""), &all);
    command.env("KUBECONFIG", namespace.laptop.kubeconfig());
    Said::by(command)
}

#[test]
#[ignore = "needs: cluster"]
fn what_is_injected_is_applied_and_no_field_is_forced() -> Result<()> {
    in_namespace(|namespace| {
        let mut demo = manifests::demo(manifests::RUST, 1, Agent::Absent);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}, demo]});
        let dry = applied(namespace, &list.to_string(), &["--dry-run"])?.code(0)?;
        ensure!(
            dry.out
                == "configmap/settings created (dry run on the server)\n\
                            deployment/demo created (dry run on the server)\n",
            "{dry:?}"
        );
        ensure!(namespace.kubectl.json(&["get", "deployment", "demo"]).is_err(), "a dry run made it");
        let made = applied(namespace, &list.to_string(), &[])?.code(0)?;
        ensure!(made.out == "configmap/settings created\ndeployment/demo created\n", "{made:?}");
        namespace.rolled_out("demo")?;
        let live = namespace.kubectl.json(&["get", "deployment", "demo"])?;
        ensure!(live.to_string().contains("devsync-agent"), "{live}");
        let managers = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        ensure!(managers.iter().any(|m| m["manager"] == "devsync" && m["operation"] == "Apply"), "{live}");
        let again = applied(namespace, &list.to_string(), &[])?.code(0)?;
        ensure!(again.out == "configmap/settings unchanged\ndeployment/demo unchanged\n", "{again:?}");
        // It is the whole object's manager now: to give up its fields would be the end of the app.
        let mut detach = namespace.devsync.command(&namespace.path(""), &["detach", "deploy/demo", "--yes"]);
        detach.env("KUBECONFIG", namespace.laptop.kubeconfig());
        Said::by(detach)?.refused(&["deploy/demo", "inject --eject", "--apply"])?;
        // Somebody else's field is named, stays, and keeps nothing else back.
        let scaled = json!({"spec": {"replicas": 2}}).to_string();
        let scale =
            ["patch", "deployment", "demo", "--type", "merge", "--field-manager", "scaler", "-p", &scaled];
        namespace.kubectl.run(&scale)?;
        demo["metadata"]["namespace"] = json!(namespace.name);
        let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
            "data": {"a": "2"}});
        let both = format!("{demo}\n{settings}");
        let said = applied(namespace, &both, &[])?.code(3)?;
        said.says(&[
            "deployment/demo cannot be applied",
            "scaler",
            "spec.replicas",
            "never forces",
            "hint: ",
        ])?;
        let live = namespace.kubectl.json(&["get", "deployment", "demo"])?;
        ensure!(live["spec"]["replicas"] == 2, "{live}");
        let settings = namespace.kubectl.json(&["get", "configmap", "settings"])?;
        ensure!(settings["data"]["a"] == "2", "{settings}");
        // What makes no sense is said by name.
        applied(namespace, &demo.to_string(), &["-n", "elsewhere"])?.code(2)?.says(&["demo", "elsewhere"])?;
        let strange = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}});
        applied(namespace, &strange.to_string(), &[])?.code(3)?.says(&[
            "thing/x",
            "no kind Thing",
            "hint: ",
        ])?;
        Ok(())
    })
}

#[test]
#[ignore = "needs: cluster"]
fn the_dev_environment_runs_with_devsync_in_it() -> Result<()> {
    in_namespace(|namespace| {
        namespace.apply_injected(&rendered(namespace, "dev")?, &[])?;
        for app in ["adder-rust", "adder-python"] {
            namespace.rolled_out(app)?;
            let pod = namespace.pod(app)?;
            ensure!(namespace.get(&pod, 8080, "/environment")? == "dev", "{app}");
            let spec = namespace.kubectl.json(&["get", "pod", &pod])?["spec"].clone();
            ensure!(spec["containers"].as_array().is_some_and(|all| all.len() == 2), "{spec}");
        }
        Ok(())
    })
}
