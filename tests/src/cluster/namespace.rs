//! A namespace of one test: made with a random name, shown if the test fails, deleted in any case.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devsync_protocol::contract;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::kubectl::Kubectl;
use super::project::Project;
use super::said::Said;
use crate::attach::{Attach, Devsync};

/// The label of everything that tests make; its value is the run, so that a run can remove what it left.
pub const LABEL: &str = "devsync.dev/test-run";
/// How long pods may take to come up, and what is asked of them to come true.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace, and a home for the client with a kubeconfig whose current context is there.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
    pub kubectl: Kubectl,
    /// The kubeconfig that `devsync` gets, which a test may change.
    pub laptop: Kubectl,
    pub devsync: Devsync,
    dir: TempDir,
}

/// Runs `test` in a namespace of its own. If it fails or panics, the namespace's state goes to standard error.
pub fn with_namespace(programs: PathBuf, test: impl FnOnce(&Namespace) -> Result<()>) -> Result<()> {
    let namespace = Namespace::create(programs)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| test(&namespace)));
    if !matches!(outcome, Ok(Ok(()))) {
        namespace.dump();
    }
    let deleted = namespace.delete();
    outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    deleted
}

impl Namespace {
    fn create(programs: PathBuf) -> Result<Namespace> {
        let dir = tempfile::tempdir()?;
        let name = format!("devsync-test-{}", random()?);
        let kubectl = Kubectl::new(dir.path().join("kubeconfig"), &name, None)?;
        let laptop = Kubectl::new(dir.path().join("kubeconfig-laptop"), &name, None)?;
        let devsync = Devsync::new(programs, dir.path().join("home"))?;
        let run = env::var("DEVSYNC_TEST_RUN").unwrap_or_else(|_| "by-hand".to_owned());
        let namespace = Namespace { name, kubectl, laptop, devsync, dir };
        // Marked as one for development: elsewhere devsync asks before it changes anything.
        let labels = json!({LABEL: run, contract::INJECT: contract::ENABLED});
        let metadata = json!({"name": namespace.name, "labels": labels});
        namespace
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).to_string())?;
        // Pods are refused before the namespace has it.
        namespace.until("a service account", || {
            Ok(namespace.kubectl.run(&["get", "serviceaccount", "default"]).ok().map(|_| ()))
        })?;
        Ok(namespace)
    }

    /// A file or directory name for the test, removed with everything.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same namespace as another user of the tests' own cluster, see [`Kubectl::new`].
    pub fn as_user(&self, user: &str) -> Result<Kubectl> {
        Kubectl::new(self.path(&format!("kubeconfig-{user}")), &self.name, Some(user))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl.feed(&["apply"], manifest).map(|_| ())
    }

    /// Applies a manifest with a Deployment, and waits until its pods are ready and no older ones are left.
    pub fn deploy(&self, manifest: &str, deployment: &str) -> Result<()> {
        self.apply(manifest)?;
        self.rolled_out(deployment)
    }

    /// Waits until a Deployment's pods are ready and no older ones are left.
    pub fn rolled_out(&self, deployment: &str) -> Result<()> {
        self.until(&format!("a rolled out deploy/{deployment}"), || {
            let deployment = self.kubectl.json(&["get", "deployment", deployment])?;
            let (status, wanted) = (&deployment["status"], &deployment["spec"]["replicas"]);
            let current = status["observedGeneration"] == deployment["metadata"]["generation"];
            let all =
                ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|count| status[count] == *wanted);
            Ok((current && all).then_some(()))
        })?;
        Ok(())
    }

    /// The pods with the label `app: APP` that are not being deleted, by name.
    pub fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let list = self.kubectl.json(&["get", "pods", "--selector", &format!("app={app}")])?;
        let pods = list["items"].as_array().context("a list of pods")?.iter();
        Ok(pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect())
    }

    /// The name of the only pod with the label `app: APP`.
    pub fn pod(&self, app: &str) -> Result<String> {
        let pods = self.pods(app)?;
        ensure!(pods.len() == 1, "{} pods of {app}", pods.len());
        name(&pods[0])
    }

    /// Asks a pod over HTTP, through the API server: `GET path` on a port of it.
    pub fn get(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let namespace = &self.name;
        let raw = format!("/api/v1/namespaces/{namespace}/pods/http:{pod}:{port}/proxy{path}");
        Ok(self.kubectl.raw(&raw)?.trim_end().to_owned())
    }

    /// Waits until a pod answers `GET path` on port 8080 with `wanted`.
    pub fn answers(&self, pod: &str, path: &str, wanted: &str) -> Result<()> {
        let mut last = String::new();
        self.until(wanted, || {
            match self.get(pod, 8080, path) {
                Ok(answer) if answer == wanted => return Ok(Some(())),
                Ok(answer) => last = answer,
                Err(error) => last = format!("{error:#}"),
            }
            Ok(None)
        })
        .with_context(|| format!("{pod} answers {last:?}"))
    }

    /// How often each container of the pods of `app` was started again by the kubelet, summed up.
    pub fn restarts(&self, app: &str) -> Result<u64> {
        let pods = self.pods(app)?;
        let statuses = pods.iter().flat_map(|pod| pod["status"]["containerStatuses"].as_array()).flatten();
        Ok(statuses.filter_map(|status| status["restartCount"].as_u64()).sum())
    }

    /// `devsync WORD…` as a developer in `project` types it, to its end.
    pub fn run(&self, project: &Project, words: &[&str]) -> Result<Said> {
        Said::by(self.command(project, words))
    }

    /// `devsync WORD…`, which is some attach that goes on, with JSON events.
    pub fn attach(&self, project: &Project, words: &[&str]) -> Result<Attach> {
        let mut command = self.command(project, &[words, &["-o", "json"]].concat());
        command.stderr(File::create(self.path("stderr"))?);
        Attach::start(command)
    }

    /// `devsync WORD…` against this namespace, not yet started.
    pub fn command(&self, project: &Project, words: &[&str]) -> Command {
        let mut command = self.devsync.command(&project.dir, words);
        project.settings(&mut command);
        command.env("KUBECONFIG", self.laptop.kubeconfig());
        command
    }

    /// What the last attach wrote to standard error so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Asks until there is an answer, for at most [`PATIENCE`].
    pub fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("no {what} within {} s", PATIENCE.as_secs());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a person would look at first.
    fn dump(&self) {
        eprintln!("== namespace {}", self.name);
        eprintln!("-- standard error of the last attach\n{}", self.said());
        let looks: [&[&str]; 4] = [
            &["get", "deployments,replicasets,pods", "--output", "wide"],
            &["get", "events", "--sort-by", ".lastTimestamp"],
            &["get", "pods", "--output", "yaml"],
            &[
                "logs",
                "--selector",
                "app",
                "--all-containers",
                "--prefix",
                "--tail",
                "100",
                "--ignore-errors",
            ],
        ];
        for look in looks {
            let text = self.kubectl.run(look).unwrap_or_else(|error| format!("{error:#}"));
            eprintln!("-- kubectl {}\n{text}", look.join(" "));
        }
    }

    /// The cluster removes it in its own time.
    fn delete(&self) -> Result<()> {
        self.kubectl.run(&["delete", "namespace", &self.name, "--wait=false"]).map(|_| ())
    }
}

/// An object's name.
pub fn name(object: &Value) -> Result<String> {
    object["metadata"]["name"].as_str().map(str::to_owned).context("an object with a name")
}

fn random() -> Result<String> {
    let mut bytes = [0; 5];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
