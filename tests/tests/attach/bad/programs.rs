//! Executables that could not run, and builds that fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place};

use crate::rig::{Rig, target};

/// The machine's number in an ELF header, and ARM's 64 bits there.
const E_MACHINE: usize = 18;
const AARCH64: u8 = 183;
const X86_64: u8 = 62;

/// One static program alone in its root.
fn alone(rig: &Rig) -> Result<(App, PathBuf)> {
    let root = rig.other("root");
    fs::create_dir(&root)?;
    let program = root.join("busybox");
    let from = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| fs::exists(p).unwrap_or(false));
    fs::copy(from.context("no busybox (busybox-static)")?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let argv = ["/busybox", "sh", "-c", "echo ready; while :; do sleep 1000; done"];
    Ok((App::start(&Place::Root(root), &argv, "ready")?, program))
}

#[test]
#[ignore = "needs: root"]
fn an_executable_that_could_not_run_is_not_sent() -> Result<()> {
    let rig = Rig::new()?;
    let (app, program) = alone(&rig)?;
    let before = fs::read(&program)?;
    let mut other = before.clone();
    other[E_MACHINE] = if other[E_MACHINE] == AARCH64 { X86_64 } else { AARCH64 };
    let place = |name: &str| -> Result<_> {
        let dir = rig.laptop.join(name);
        fs::create_dir(&dir)?;
        Ok(dir.join("busybox"))
    };
    let write = |name: &str, bytes: &[u8], mode: u32| -> Result<()> {
        let file = place(name)?;
        fs::write(&file, bytes)?;
        Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
    };
    write("other-machine", &other, 0o755)?;
    fs::copy("/usr/bin/env", place("dynamic")?)?;
    write("damaged", b"\x7fELF\x02\x01\x01 and no more than a few words", 0o755)?;
    write("text", b"print(1)\n", 0o755)?;
    write("no-mode", &before, 0o644)?;
    let attach = |name: &str| {
        let exe = format!("{name}/busybox");
        rig.run(&["attach", &target(&app), "--yes", "--once", "--exe", &exe])
    };
    attach("other-machine")?.code(1)?.says(&["error: ", "other-machine", "it is built for", "hint: "])?;
    attach("dynamic")?.code(1)?.says(&["error: ", "dynamic", "loader", "hint: "])?;
    attach("damaged")?.code(1)?.says(&["error: ", "damaged", "hint: "])?;
    attach("text")?.code(1)?.says(&["error: ", "text", "no program", "hint: "])?;
    attach("no-mode")?.code(1)?.says(&["error: ", "0644", "hint: chmod +x"])?;
    let other_name = rig.run(&["attach", &target(&app), "--yes", "--once", "--exe", "app.py"])?;
    other_name.code(2)?.says(&["error: ", "app.py", "busybox", "hint: "])?;
    ensure!(fs::read(&program)? == before, "the executable was replaced");
    ensure!(app.alive());
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_executable_that_could_not_run_waits_for_the_next_build() -> Result<()> {
    let rig = Rig::new()?;
    let (app, program) = alone(&rig)?;
    let good = fs::read(&program)?;
    let exe = rig.laptop.join("busybox");
    fs::copy(&program, &exe)?;
    let mut attach = rig.attach(&app, &["--exe", "busybox", "--restart", "none"])?;
    let link = |bytes: &[u8]| -> Result<()> {
        let new = rig.laptop.join("new");
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(new, &exe)?)
    };
    link(b"half a link")?;
    let error = attach.event("error")?;
    ensure!(error["what"].as_str().is_some_and(|what| what.contains("no program")), "{error}");
    ensure!(fs::read(&program)? == good, "the executable was replaced");
    let better = [&good[..], b"\n"].concat();
    link(&better)?;
    attach.event("synced")?;
    ensure!(fs::read(&program)? == better, "the executable was not replaced");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_build_that_fails_sends_nothing() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    rig.save("two")?;
    let words = ["--restart", "none", "--build"];
    let target = target(&app);
    let first = [&["attach", &target][..], &words, &["echo the reason >&2; exit 3"]].concat();
    rig.run(&first)?.code(1)?.says(&["the reason", "exit 3", "error: ", "hint: "])?;
    assert_eq!(fs::read_to_string(rig.pod.join("app.py"))?, crate::rig::source("one"));

    let mut attach = rig.attach(&app, &[&words[..], &["test ! -e broken"]].concat())?;
    fs::write(rig.laptop.join("broken"), "x")?;
    attach.event("build_failed")?;
    assert!(!rig.pod.join("broken").exists());
    fs::write(rig.laptop.join("good.txt"), "x")?;
    attach.event("build_failed")?;
    assert!(!rig.pod.join("good.txt").exists());
    fs::remove_file(rig.laptop.join("broken"))?;
    attach.event("built")?;
    attach.event("synced")?;
    assert_eq!(fs::read(rig.pod.join("good.txt"))?, b"x");
    assert!(!rig.pod.join("broken").exists());
    Ok(())
}
