//! `devsync inject` as a person pipes it: a manifest in, and what comes out into the cluster.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::manifests::AGENT_IMAGE;
use super::namespace::Namespace;

impl Namespace {
    /// `devsync inject WORD…` of a manifest: what it printed, and what it said.
    pub fn injected(&self, manifest: &str, words: &[&str]) -> Result<(String, String)> {
        let all = [&["inject", "--agent-image", AGENT_IMAGE], words].concat();
        let mut command = self.devsync.command(&self.path(""), &all);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start devsync")?;
        child.stdin.take().context("stdin is piped")?.write_all(manifest.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "devsync inject: {}: {said}", output.status);
        Ok((String::from_utf8(output.stdout)?, said))
    }

    /// `devsync inject | kubectl apply`.
    pub fn apply_injected(&self, manifest: &str, words: &[&str]) -> Result<()> {
        self.apply(&self.injected(manifest, words)?.0)
    }
}
