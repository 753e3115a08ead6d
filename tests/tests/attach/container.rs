//! podman/NAME: an agent in a container of its own beside a plain container, by the engine's own command.

mod tools;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use devsync_tests::attach::Attach;

use crate::rig::Rig;

/// An engine with storage of its own, which goes with the test.
struct Podman {
    dir: PathBuf,
    program: PathBuf,
}

impl Podman {
    fn new(rig: &Rig) -> Result<Podman> {
        let dir = rig.other("podman");
        fs::create_dir(&dir)?;
        // Where limits cannot be raised, the engine's own defaults start no container.
        let config = dir.join("containers.conf");
        fs::write(
            &config,
            "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=1000:1000\"]\n\
             [engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n",
        )?;
        let program = dir.join("podman");
        let script = format!(
            "#!/bin/sh\nexport CONTAINERS_CONF={}\nexec podman --root {} --runroot {} --storage-driver vfs \"$@\"\n",
            config.display(),
            dir.join("root").display(),
            dir.join("run").display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(Podman { dir, program })
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).args(words).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "podman {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Makes the image `name` of what `furnish` puts into its root.
    fn image(&self, name: &str, change: &str, furnish: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let root = self.dir.join(format!("{name}.root"));
        fs::create_dir(&root)?;
        furnish(&root)?;
        let tar = self.dir.join(format!("{name}.tar"));
        let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status()?;
        ensure!(packed.success(), "tar: {packed}");
        let tar = tar.to_str().context("a name")?;
        self.run(&["import", "--quiet", "--change", change, tar, &format!("localhost/{name}")])?;
        Ok(())
    }

    /// The agent of this build, with the libraries that it is linked to.
    fn agent_image(&self, program: &Path) -> Result<()> {
        self.image("agent", "ENTRYPOINT [\"/devsync-agent\"]", |root| put(program, root, "devsync-agent"))
    }

    /// A container `app` of user 1000, who owns /app.
    fn app(&self) -> Result<()> {
        self.image("app", "WORKDIR /app", |root| {
            fs::create_dir(root.join("app"))?;
            chown(root.join("app"), Some(1000), Some(1000))?;
            fs::copy("/bin/busybox", root.join("busybox"))?;
            Ok(())
        })?;
        let user = ["run", "--detach", "--name", "app", "--user", "1000:1000", "localhost/app"];
        self.run(&[&user[..], &["/busybox", "httpd", "-f", "-p", "127.0.0.1:8080"]].concat())?;
        Ok(())
    }

    fn devsync(&self, rig: &Rig, words: &[&str]) -> Command {
        let mut command = rig.devsync.command(&rig.laptop, words);
        command.env("DEVSYNC_PODMAN", &self.program).env("DEVSYNC_AGENT_IMAGE", "localhost/agent");
        command
    }

    /// `devsync attach podman/NAME --once`: how it ended, and what it said.
    fn once(&self, rig: &Rig, target: &str) -> Result<(Option<i32>, String)> {
        let output = self.devsync(rig, &["attach", target, "--sync", ".", "--once"]).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// Copies a program into a root, with the libraries that it is linked to.
fn put(program: &Path, root: &Path, place: &str) -> Result<()> {
    let place = root.join(place);
    fs::create_dir_all(place.parent().context("a directory")?)?;
    fs::copy(program, place)?;
    let listed = Command::new("ldd").arg(program).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(&library[1..]);
        fs::create_dir_all(place.parent().context("a directory")?)?;
        fs::copy(library, place)?;
    }
    Ok(())
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What a container had mounted must go before the directory does.
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
#[ignore = "needs: root, podman"]
fn a_save_into_a_plain_container_is_there_and_nothing_is_left() -> Result<()> {
    let rig = Rig::new()?;
    let podman = Podman::new(&rig)?;
    podman.agent_image(&rig.devsync.programs.join("devsync-agent"))?;
    podman.app()?;
    let words = ["attach", "podman/app", "--sync", ".", "--restart", "reexec", "-o", "json"];
    let mut attach = Attach::start(podman.devsync(&rig, &words))?;
    attach.first_sync()?;
    rig.save("two")?;
    let restarted = attach.event("restarted")?;
    ensure!(restarted["old_pid"] == restarted["new_pid"], "{restarted}");
    let there = podman.run(&["exec", "app", "/busybox", "cat", "/app/app.py"])?;
    ensure!(there == crate::rig::source("two").trim(), "{there}");
    ensure!(podman.run(&["ps", "--quiet"])?.lines().count() == 2);
    let status = crate::rig::run(podman.devsync(&rig, &["status"]))?.code(0)?;
    ensure!(status.out.starts_with("podman/app  httpd, attached from "), "{status:?}");
    crate::rig::run(podman.devsync(&rig, &["restart"]))?.code(0)?;
    attach.event("restarted")?;
    crate::rig::run(podman.devsync(&rig, &["verify"]))?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    let left = podman.run(&["ps", "--all", "--format", "{{.Names}}"])?;
    ensure!(left == "app", "{left}");
    Ok(())
}

#[test]
#[ignore = "needs: root, podman"]
fn what_is_missing_is_named() -> Result<()> {
    let rig = Rig::new()?;
    let mut podman = Podman::new(&rig)?;
    let (code, said) = podman.once(&rig, "podman/app")?;
    ensure!(code == Some(1) && said.contains("no container app") && said.contains("podman ps"), "{said}");
    podman.app()?;
    let (code, said) = podman.once(&rig, "podman/app")?;
    ensure!(
        code == Some(1) && said.contains("localhost/agent") && said.contains("DEVSYNC_AGENT_IMAGE"),
        "{said}"
    );
    podman.run(&["stop", "--time", "0", "app"])?;
    let (code, said) = podman.once(&rig, "podman/app")?;
    ensure!(code == Some(1) && said.contains("is exited") && said.contains("podman start app"), "{said}");
    let program = std::mem::replace(&mut podman.program, rig.other("no-podman"));
    let (code, said) = podman.once(&rig, "podman/app")?;
    podman.program = program;
    ensure!(code == Some(1) && said.contains("not installed"), "{said}");
    Ok(())
}
