//! kubectl with a kubeconfig of our own, which names one context and one namespace.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longer than any request takes; kubectl ends by itself then.
const REQUEST: &str = "--request-timeout=60s";

/// A kubeconfig file that says which cluster, who, and which namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Writes `kubeconfig` for the tests' cluster and `namespace`. `user`: a suffix of the context's name, for those
    /// that the tests' own cluster has beside its administrator's.
    pub fn new(kubeconfig: PathBuf, namespace: &str, user: Option<&str>) -> Result<Kubectl> {
        let mut view = Command::new("kubectl");
        let context = if let Some(context) = env::var_os("DEVSYNC_TEST_CONTEXT") {
            ensure!(user.is_none(), "a cluster of yours has no second user for the tests");
            context.into_string().map_err(|name| anyhow::anyhow!("context {name:?}"))?
        } else if let Some(path) = env::var_os("DEVSYNC_TEST_KUBECONFIG") {
            view.env("KUBECONFIG", path);
            format!("devsync-test{}", user.map(|user| format!("-{user}")).unwrap_or_default())
        } else {
            bail!("which cluster? run scripts/test cluster, or name a context in DEVSYNC_TEST_CONTEXT");
        };
        view.args(["config", "view", "--minify", "--flatten", "--context", &context]);
        let one = succeeded(&view.output().context("start kubectl")?, "kubectl config view")?;
        fs::write(&kubeconfig, one).with_context(|| format!("write {}", kubeconfig.display()))?;
        let kubectl = Kubectl { kubeconfig };
        kubectl.run(&["config", "set-context", "--current", "--namespace", namespace])?;
        Ok(kubectl)
    }

    /// The file, for other programs.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl ARGUMENT…`, not yet started.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, which must be a good one; gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        // First: what comes after `--` is another program's.
        let output = self.command(&[&[REQUEST], arguments].concat()).output().context("start kubectl")?;
        succeeded(&output, &format!("kubectl {}", arguments.join(" ")))
    }

    /// The same, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {arguments:?}"))
    }

    /// What the API server answers to `GET path`. A timeout would become a part of the path's query.
    pub fn raw(&self, path: &str) -> Result<String> {
        let output = self.command(&["get", "--raw", path]).output().context("start kubectl")?;
        succeeded(&output, &format!("GET {path}"))
    }

    /// Gives `text` to `kubectl ARGUMENT… --filename -`.
    pub fn feed(&self, arguments: &[&str], text: &str) -> Result<String> {
        let mut command = self.command(&[arguments, &["--filename", "-", REQUEST]].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
        succeeded(&child.wait_with_output()?, &format!("kubectl {} of\n{text}", arguments.join(" ")))
    }
}

fn succeeded(output: &Output, what: &str) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
