//! The ways of docs/guides/customize.md with the real programs, and the demo application's environments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use devsync_tests::cluster::namespace::Namespace;

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
            let (injected, _) = namespace.injected(&text, &[])?;
            ensure!((injected == text) == (environment == "production"), "{environment}: {injected}");
            namespace.kubectl.feed(&["apply", "--dry-run=server"], &injected)?;
        }
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
