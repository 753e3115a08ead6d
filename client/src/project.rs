//! What kind of project a directory holds, as plain data: found once, judged in [`crate::mapping`].

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// What was found in a project's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    pub dir: PathBuf,
    pub cargo: Option<Cargo>,
    pub go: Option<Go>,
    /// Jars that a Maven or Gradle build left, newest first.
    pub jars: Vec<PathBuf>,
    /// Directories of the Python packages that this project installs, as a pyproject.toml or setup.py beside them says
    /// that it does.
    pub packages: Vec<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cargo {
    pub target_dir: PathBuf,
    pub bins: Vec<String>,
}

/// Directories of `main` packages, relative to the project, with the name that `go build` gives each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Go {
    pub mains: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    #[serde(default)]
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Project {
    pub fn find(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            cargo: find_cargo(dir),
            go: find_go(dir),
            jars: find_jars(dir),
            packages: find_packages(dir),
        }
    }
}

/// Asks cargo itself; without cargo there is nothing to build with either.
fn find_cargo(dir: &Path) -> Option<Cargo> {
    if !dir.join("Cargo.toml").is_file() {
        return None;
    }
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(dir)
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    read_metadata(&output.stdout)
}

fn read_metadata(json: &[u8]) -> Option<Cargo> {
    let metadata: Metadata = serde_json::from_slice(json).ok()?;
    let default = &metadata.workspace_default_members;
    let packages = metadata.packages.iter().filter(|p| default.is_empty() || default.contains(&p.id));
    let targets = packages.flat_map(|p| &p.targets);
    let bins = targets.filter(|t| t.kind.iter().any(|k| k == "bin")).map(|t| t.name.clone()).collect();
    Some(Cargo { target_dir: metadata.target_directory, bins })
}

fn find_go(dir: &Path) -> Option<Go> {
    let module = std::fs::read_to_string(dir.join("go.mod")).ok()?;
    let mut mains = Vec::new();
    if is_go_main(dir) {
        let path = module.lines().find_map(|line| line.strip_prefix("module "));
        let name = path.and_then(|p| p.trim().rsplit('/').next()).unwrap_or("main");
        mains.push((".".to_owned(), name.to_owned()));
    }
    for entry in std::fs::read_dir(dir.join("cmd")).into_iter().flatten().flatten() {
        if let (true, Ok(name)) = (is_go_main(&entry.path()), entry.file_name().into_string()) {
            mains.push((format!("./cmd/{name}"), name));
        }
    }
    mains.sort();
    Some(Go { mains })
}

fn is_go_main(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let sources = files.filter(|p| p.extension().is_some_and(|e| e == "go"));
    let is_test = |p: &PathBuf| p.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("_test"));
    sources.filter(|p| !is_test(p)).any(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.split_whitespace().take(2).eq(["package", "main"]))
    })
}

/// Beside the file that says so, or in `src`.
fn find_packages(dir: &Path) -> Vec<PathBuf> {
    if !["pyproject.toml", "setup.py", "setup.cfg"].iter().any(|name| dir.join(name).is_file()) {
        return Vec::new();
    }
    let entries = [dir.join("src"), dir.to_owned()].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
    let paths = entries.flatten().flatten().map(|entry| entry.path());
    let mut packages: Vec<PathBuf> = paths.filter(|path| path.join("__init__.py").is_file()).collect();
    packages.retain(|path| path.file_name().is_some_and(|name| name != "tests" && name != "test"));
    packages.sort();
    packages
}

fn find_jars(dir: &Path) -> Vec<PathBuf> {
    let mut jars = Vec::new();
    for place in [dir.join("target"), dir.join("build/libs")] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let auxiliary = ["-sources.jar", "-javadoc.jar", "-plain.jar", "-tests.jar"];
            let is_app = name.ends_with(".jar")
                && !name.starts_with("original-")
                && !auxiliary.iter().any(|a| name.ends_with(a));
            if let (true, Ok(modified)) = (is_app, entry.metadata().and_then(|m| m.modified())) {
                jars.push((modified, entry.path()));
            }
        }
    }
    jars.sort_by(|a, b| b.cmp(a));
    jars.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_names_its_binaries() {
        let json = br#"{"packages":[{"id":"a","targets":[{"name":"lib","kind":["lib"]},{"name":"demo","kind":["bin"]}]},
            {"id":"b","targets":[{"name":"other","kind":["bin"]}]}],
            "target_directory":"/w/target","workspace_default_members":["a"]}"#;
        let cargo = read_metadata(json).expect("metadata");
        assert_eq!(cargo, Cargo { target_dir: "/w/target".into(), bins: vec!["demo".to_owned()] });
    }

    #[test]
    fn go_mains_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        assert_eq!(find_go(dir.path()), None);
        write("go.mod", "module example.com/x/demo\n\ngo 1.24\n");
        write("main.go", "// Package main\npackage main\n");
        write("cmd/tool/main.go", "package main\n");
        write("cmd/lib/lib.go", "package lib\n");
        let names = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let mains = vec![names(".", "demo"), names("./cmd/tool", "tool")];
        assert_eq!(find_go(dir.path()), Some(Go { mains }));
    }

    #[test]
    fn the_app_jar_is_told_from_its_companions() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(dir.path().join("target")).expect("made");
        for name in ["app-1.jar", "app-1-sources.jar", "original-app-1.jar", "x.txt"] {
            std::fs::write(dir.path().join("target").join(name), "").expect("written");
        }
        assert_eq!(find_jars(dir.path()), [dir.path().join("target/app-1.jar")]);
    }
}
