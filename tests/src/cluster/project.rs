//! A developer's copy of the demo's sources, its saves, and what its service then answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::demo::project::{Language, copy, own_settings};

/// What is asked of the service.
pub const QUESTION: &str = "/add/2/3";

/// The directory that the developer works in.
#[derive(Debug)]
pub struct Project {
    pub dir: PathBuf,
    source: PathBuf,
    original: String,
    /// The part of the source that a save changes.
    old: &'static str,
}

impl Project {
    /// Copies the demo's sources to `dir`.
    pub fn copy(language: Language, dir: PathBuf) -> Result<Project> {
        match language {
            Language::Rust => Self::of("rust", "src/main.rs", "= {sum}\"", dir),
            Language::Python => Self::of("python", "adder.py", "= {x + y}\\n", dir),
        }
    }

    /// The service for Node, whose ignore file hides what it runs.
    pub fn node(dir: PathBuf) -> Result<Project> {
        Self::of("node", "dist/server.js", "= ${x + y}\\n", dir)
    }

    /// The service that is a Python package.
    pub fn package(dir: PathBuf) -> Result<Project> {
        Self::of("python-package", "src/adder/__init__.py", "= {x + y}\\n", dir)
    }

    /// The service in Go.
    pub fn go(dir: PathBuf) -> Result<Project> {
        Self::of("go", "main.go", "= %d\\n", dir)
    }

    fn of(demo: &str, source: &str, old: &'static str, dir: PathBuf) -> Result<Project> {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(demo), &dir)?;
        let source = dir.join(source);
        let original = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
        Ok(Project { dir, source, original, old })
    }

    /// Saves the source so that the answer names `save`; an empty one is the source as it was.
    pub fn save(&self, save: &str) -> Result<()> {
        let old = self.old;
        let end = old.find(['}', 'd']).context("a place for the save")? + 1;
        let changed = self.original.replace(old, &format!("{}{save}{}", &old[..end], &old[end..]));
        ensure!(save.is_empty() || changed != self.original, "{} has no {old}", self.source.display());
        fs::write(&self.source, changed).with_context(|| format!("write {}", self.source.display()))
    }

    /// Lets builds below `command` be the project's own, in its directory.
    pub fn settings(&self, command: &mut Command) {
        own_settings(command, &self.dir);
    }
}

/// What the service answers to [`QUESTION`] after a save.
pub fn answer(save: &str) -> String {
    format!("2 + 3 = 5{save}")
}
