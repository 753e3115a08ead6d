//! Reads `cargo metadata`: every package of the tree, for every platform, with what the policy asks about it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A package as cargo resolved it.
#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// SPDX expression; empty if the package names none.
    pub licence: String,
    /// `None` for the packages of the workspace.
    pub source: Option<String>,
    /// Names of the packages in its manifest, without those for development.
    pub dependencies: Vec<String>,
}

/// The root directory of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}

/// Asks cargo for all packages of the workspace at `root`.
pub fn packages(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let list = all["packages"].as_array().context("cargo metadata names no packages")?;
    Ok(list.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
    let dependencies = value["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    Package {
        name: text("name"),
        version: text("version"),
        licence: text("license"),
        source: value["source"].as_str().map(str::to_string),
        dependencies: dependencies
            .iter()
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| dependency["name"].as_str())
            .map(str::to_string)
            .collect(),
    }
}

/// A version as numbers that compare; a pre-release or build tail is left out.
pub fn numbers(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
