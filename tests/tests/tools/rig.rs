//! A FROM-scratch root with one program in it, and devsync with a home of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place};
use devsync_tests::attach::Devsync;
use tempfile::TempDir;

/// The directory, whose `pod` is the app's root.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    devsync: Devsync,
}

impl Rig {
    pub(crate) fn new() -> Result<Rig> {
        let test = std::env::current_exe()?;
        let programs = test.ancestors().nth(2).context("a test lies in target/…/deps")?.to_owned();
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        fs::create_dir(dir.path().join("pod"))?;
        let devsync = Devsync::new(programs, dir.path().join("home"))?;
        Ok(Rig { dir, devsync })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds the demo in Rust: one static program.
    pub(crate) fn rust(&self) -> Result<PathBuf> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo-rust");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--offline", "--quiet"]).current_dir(demo("rust"));
        for variable in ["CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        succeeds(cargo.env("CARGO_TARGET_DIR", &target))?;
        Ok(target.join("debug/adder"))
    }

    /// Builds the demo in Go, for a debugger.
    pub(crate) fn go(&self) -> Result<PathBuf> {
        let out = self.path("adder-go");
        let mut go = Command::new("go");
        go.args(["build", "-gcflags", "all=-N -l", "-o"]).arg(&out).arg(".").current_dir(demo("go"));
        succeeds(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod"))?;
        Ok(out)
    }

    /// Starts the program, alone in its root.
    pub(crate) fn start(&self, program: &Path) -> Result<App> {
        let there = self.path("pod/adder");
        fs::copy(program, &there)?;
        fs::set_permissions(&there, fs::Permissions::from_mode(0o755))?;
        App::start(&Place::Root(self.path("pod")), &["/adder"], "adder ")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.devsync.command(self.dir.path(), words)
    }

    /// devsync and its agent where every user may execute them.
    pub(crate) fn for_everybody(&self) -> Result<PathBuf> {
        let programs = self.path("programs");
        fs::create_dir(&programs)?;
        for name in ["devsync", "devsync-agent"] {
            fs::copy(self.devsync.programs.join(name), programs.join(name))?;
        }
        Ok(programs.join("devsync"))
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.devsync.home.join("state/devsync")
    }
}

pub(crate) fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(name)
}

pub(crate) fn succeeds(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", both(&output));
    Ok(output)
}

pub(crate) fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
