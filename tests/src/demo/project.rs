//! The user's project in the demo: its sources on the laptop's side, and the program on the pod's side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Setup;
use crate::app::{App, Place};

/// Which of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// One static executable, alone in its root.
    Rust,
    /// pyramid under gunicorn, in the machine's files.
    Python,
}

/// The project and the place where its program runs.
#[derive(Debug)]
pub struct Project {
    language: Language,
    /// The directory that the developer works in.
    pub laptop: PathBuf,
    /// The file that the demo changes.
    pub source: PathBuf,
    original: String,
    pod: PathBuf,
}

impl Project {
    /// Copies the sources, builds them where they need it, and fills the pod's side.
    pub fn prepare(setup: &Setup, language: Language) -> Result<Project> {
        let laptop = setup.work.join("laptop/adder");
        let pod = setup.work.join("pod");
        fs::create_dir_all(&pod).context("make the pod's directory")?;
        fs::set_permissions(&setup.work, fs::Permissions::from_mode(0o711))?;
        let (name, source) = match language {
            Language::Rust => ("rust", "src/main.rs"),
            Language::Python => ("python", "adder.py"),
        };
        copy(&setup.sources.join(name), &laptop)?;
        match language {
            Language::Rust => {
                build(&laptop)?;
                fs::copy(laptop.join("target/debug/adder"), pod.join("adder"))
                    .context("copy the executable")?;
                fs::set_permissions(pod.join("adder"), fs::Permissions::from_mode(0o755))?;
            }
            Language::Python => copy(&laptop, &pod)?,
        }
        let source = laptop.join(source);
        let original = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
        Ok(Project { language, laptop, source, original, pod })
    }

    /// Starts the program on the pod's side.
    pub fn start(&self) -> Result<App> {
        match self.language {
            Language::Rust => App::start(&Place::Root(self.pod.clone()), &["/adder"], "adder "),
            Language::Python => {
                let place = Place::Directory(self.pod.clone());
                App::start(&place, &["/usr/bin/python3", "-B", "/usr/bin/gunicorn", "adder:app"], "adder ")
            }
        }
    }

    /// `devsync` with these arguments in the project, whose builds are the project's own.
    pub fn devsync(&self, setup: &Setup, arguments: &[String]) -> Command {
        let mut command = setup.devsync.command(&self.laptop, arguments);
        own_settings(&mut command, &self.laptop);
        command
    }

    /// The arguments of `devsync` for this program, and `more`.
    pub fn attach(&self, app: &App, more: &[&str]) -> Vec<String> {
        let target = format!("pid/{}", app.pid());
        let mut arguments = vec!["attach".to_string(), target];
        let own: &[&str] = match self.language {
            Language::Rust => &["--exe", "target/debug/adder", "--build", "cargo build --offline --quiet"],
            Language::Python => &[],
        };
        arguments.extend(own.iter().chain(more).map(ToString::to_string));
        arguments
    }

    /// Saves the source so that the answer names save `number`.
    pub fn change(&self, number: usize) -> Result<()> {
        let (old, new) = match self.language {
            Language::Rust => ("= {sum}\"", format!("= {{sum}} (save {number})\"")),
            Language::Python => ("= {x + y}\\n", format!("= {{x + y}} (save {number})\\n")),
        };
        let changed = self.original.replace(old, &new);
        ensure!(changed != self.original, "{} has no line with {old}", self.source.display());
        fs::write(&self.source, changed).with_context(|| format!("write {}", self.source.display()))
    }

    /// What the program answers after save `number`; 0 is the program as it was.
    pub fn answer(number: usize) -> String {
        if number == 0 { "2 + 3 = 5".to_string() } else { format!("2 + 3 = 5 (save {number})") }
    }
}

fn build(directory: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--offline", "--quiet"]);
    own_settings(cargo.current_dir(directory), directory);
    let status = cargo.status().context("start cargo")?;
    ensure!(status.success(), "cargo build of the demo ended with {status}");
    Ok(())
}

/// Cargo puts what it builds where the demo looks for it, whatever this program itself was built with.
pub fn own_settings(command: &mut Command, project: &Path) {
    command.env("CARGO_TARGET_DIR", project.join("target"));
    for variable in ["CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
}

/// Copies a project without what was built in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let destination = to.join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            fs::copy(entry.path(), &destination)
                .with_context(|| format!("write {}", destination.display()))?;
        } else if entry.file_name() != "target" && entry.file_name() != "__pycache__" {
            copy(&entry.path(), &destination)?;
        }
    }
    Ok(())
}
