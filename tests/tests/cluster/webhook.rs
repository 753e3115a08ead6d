//! The webhook on a real API server: installed for one test's namespaces only, and always taken out again.

mod bad;
mod inject;
mod rotate;

use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use devsync_protocol::contract;
use devsync_tests::cluster::manifests::AGENT_IMAGE;
use devsync_tests::cluster::namespace::{self, LABEL, Namespace};
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;
use serde_json::{Value, json};

/// The injector's image as `scripts/images injector` names it.
const IMAGE: &str = "localhost/devsync-injector:dev";
/// Namespaces without this label are not this test's webhook's.
const SCOPE: &str = "devsync.dev/test-webhook";

/// An installation beside the test's namespace.
struct Installed<'a> {
    namespace: &'a Namespace,
    project: Project,
    /// The installation's namespace.
    system: String,
}

/// Runs a test with a webhook of its own, for pods of its namespace.
fn with_webhook(test: impl FnOnce(&Installed<'_>) -> Result<()>) -> Result<()> {
    namespace::with_namespace(super::pods::programs()?, |namespace| {
        let installed = Installed::new(namespace)?;
        test(&installed)
    })
}

impl<'a> Installed<'a> {
    fn new(namespace: &'a Namespace) -> Result<Self> {
        let project = Project::copy(Language::Rust, namespace.path("adder"))?;
        let this = Self { namespace, project, system: format!("{}-system", namespace.name) };
        let scope = format!("{SCOPE}={}", namespace.name);
        namespace.kubectl.run(&["label", "namespace", &namespace.name, &scope])?;
        let words = ["install", "--yes", "-n", &this.system, "--only", &scope, "--image", IMAGE];
        let more = ["--agent-image", AGENT_IMAGE, "--injector-arg=--certificate-overlap=8"];
        let said = namespace.run(&this.project, &[&words[..], &more].concat())?.code(0)?;
        ensure!(said.out.contains("is ready and serves"), "{said:?}");
        let run = std::env::var("DEVSYNC_TEST_RUN").unwrap_or_else(|_| "by-hand".to_owned());
        namespace.kubectl.run(&["label", "namespace", &this.system, &format!("{LABEL}={run}")])?;
        Ok(this)
    }

    /// The name of the webhook's configuration, and of what else is the whole cluster's.
    fn configuration(&self) -> String {
        format!("{}-{}", contract::INJECTOR, self.system)
    }

    /// kubectl in the installation's namespace.
    fn system(&self, words: &[&str]) -> Result<String> {
        self.namespace.kubectl.run(&[words, &["-n", &self.system]].concat())
    }

    fn system_json(&self, words: &[&str]) -> Result<Value> {
        self.namespace.kubectl.json(&[words, &["-n", &self.system]].concat())
    }

    /// What the API server makes of these objects, without keeping them; and what it says.
    fn tried(&self, objects: &[Value], place: &str) -> Result<(Vec<Value>, String)> {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let file = format!("tried-{}.json", FILES.fetch_add(1, Ordering::Relaxed));
        let file = self.namespace.path(&file);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string())?;
        let file = file.to_str().context("a path")?;
        let words = ["create", "--dry-run=server", "--validate=false", "-o", "json", "-n", place, "-f", file];
        let Output { status, stdout, stderr } = self.namespace.kubectl.command(&words).output()?;
        let said = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.success(), "{said}");
        // One after the other, without a list around them.
        let items = serde_json::Deserializer::from_slice(&stdout).into_iter().collect::<Result<_, _>>()?;
        Ok((items, said))
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let words = ["uninstall", "--yes", "-n", &self.system];
        match self.namespace.run(&self.project, &words) {
            Ok(said) if said.code == Some(0) => {}
            other => eprintln!("the webhook was not uninstalled: {other:?}"),
        }
    }
}

/// A pod that nobody told of devsync.
fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"containers": [{"name": "app", "image": "shop"}]}})
}

fn has_agent(pod: &Value) -> bool {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.into_iter().any(|container| container["name"] == contract::AGENT_CONTAINER)
}

/// A file of this repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
