//! Several targets of one attach, as devsync.toml names them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use devsync_tests::app::App;
use devsync_tests::attach::Attach;

use crate::rig::{Rig, ask, target};

/// The same service a second time, in a directory of its own.
fn second(rig: &Rig) -> Result<(std::path::PathBuf, App)> {
    let pod = rig.other("second");
    fs::create_dir(&pod)?;
    fs::copy(rig.pod.join("app.py"), pod.join("app.py"))?;
    for path in [&pod, &pod.join("app.py")] {
        std::os::unix::fs::chown(path, Some(devsync_tests::app::UID), Some(devsync_tests::app::UID))?;
    }
    let place = devsync_tests::app::Place::Directory(pod.clone());
    let app = App::start(&place, &["/usr/bin/python3", "-B", "app.py"], "ready")?;
    Ok((pod, app))
}

fn configure(rig: &Rig, one: &App, other: &App, more: &str) -> Result<()> {
    let (one, other) = (target(one), target(other));
    let text = format!("{more}\n[targets.api]\ntarget = \"{one}\"\n[targets.web]\ntarget = \"{other}\"\n");
    Ok(fs::write(rig.laptop.join("devsync.toml"), text)?)
}

/// Waits for one event of each target.
fn of_each(attach: &mut Attach, name: &str) -> Result<()> {
    let first = attach.event(name)?;
    let first = first["target"].as_str().unwrap_or_default().to_owned();
    ensure!(first == "api" || first == "web", "{first}");
    attach.event_where(name, |e| e["target"] != first.as_str()).map(drop)
}

#[test]
#[ignore = "needs: root"]
fn one_save_reaches_all_targets() -> Result<()> {
    let rig = Rig::new()?;
    let (one, (_, other)) = (rig.app()?, second(&rig)?);
    configure(&rig, &one, &other, "")?;
    let mut attach = rig.attach_by(&["attach", "--yes"])?;
    of_each(&mut attach, "synced")?;
    rig.save("two")?;
    of_each(&mut attach, "ready")?;
    ensure!(ask(&one)?.starts_with("two ") && ask(&other)?.starts_with("two "));
    let status = rig.run(&["status"])?.code(0)?;
    ensure!(status.out.matches("attached from").count() == 2, "{status:?}");
    rig.run(&["verify", &target(&one)])?.code(0)?;
    rig.run(&["verify", &target(&other)])?.code(0)?;
    assert_eq!(attach.stop()?.code(), Some(0));
    ensure!(rig.run(&["status"])?.code(0)?.out.contains("nothing is attached"));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn one_that_fails_does_not_end_the_others() -> Result<()> {
    let rig = Rig::new()?;
    let (one, (pod, other)) = (rig.app()?, second(&rig)?);
    configure(&rig, &one, &other, "restart = \"none\"")?;
    let mut attach = rig.attach_by(&["attach", "--yes"])?;
    of_each(&mut attach, "synced")?;
    drop(one);
    attach.event_where("error", |e| e["target"] == "api")?;
    rig.save("two")?;
    attach.event_where("synced", |e| e["target"] == "web" && e["files"] == 1)?;
    assert_eq!(fs::read_to_string(pod.join("app.py"))?, crate::rig::source("two"));
    // It ends with the worst of all.
    assert_eq!(attach.stop()?.code(), Some(1));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn words_of_several_targets_begin_with_their_names() -> Result<()> {
    let rig = Rig::new()?;
    let (one, (_, other)) = (rig.app()?, second(&rig)?);
    configure(&rig, &one, &other, "restart = \"none\"")?;
    fs::write(rig.laptop.join("new.txt"), "new")?;
    let said = rig.run(&["attach", "--yes", "--once"])?.code(0)?;
    for name in ["[api] ", "[web] "] {
        ensure!(said.out.lines().any(|l| l.starts_with(name) && l.contains("synced 2 files")), "{said:?}");
    }
    ensure!(said.out.lines().all(|l| l.starts_with("[api] ") || l.starts_with("[web] ")), "{said:?}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn one_build_serves_all_targets() -> Result<()> {
    let rig = Rig::new()?;
    let (one, (pod, other)) = (rig.app()?, second(&rig)?);
    let (out, log) = (rig.laptop.join("out"), rig.other("builds"));
    fs::create_dir(&out)?;
    fs::write(rig.laptop.join("source.txt"), "one")?;
    fs::write(rig.laptop.join(".gitignore"), "out\n")?;
    let build = format!("echo build >> {} && cp source.txt out/built.txt", log.display());
    let more = format!("restart = \"none\"\nsync = [\"out:out\"]\nbuild = \"{build}\"");
    configure(&rig, &one, &other, &more)?;
    let mut attach = rig.attach_by(&["attach", "--yes"])?;
    of_each(&mut attach, "synced")?;
    let builds = || fs::read_to_string(&log).map(|text| text.lines().count());
    assert_eq!(builds()?, 1);
    // Longer ago than a file's time is inexact.
    std::thread::sleep(Duration::from_millis(100));
    fs::write(rig.laptop.join("source.txt"), "two")?;
    of_each(&mut attach, "synced")?;
    for pod in [&rig.pod, &pod] {
        assert_eq!(fs::read_to_string(pod.join("out/built.txt"))?, "two");
    }
    // The two watchers see the change at their own times; no more than one build each.
    ensure!((2..=3).contains(&builds()?), "{}", builds()?);
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_interrupted_first_sync_ends_in_order() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    for i in 0..3000 {
        fs::write(rig.laptop.join(format!("file{i}")), vec![b'x'; 20_000])?;
    }
    let mut attach = rig.attach_unsynced(&app, &["--restart", "none"])?;
    attach.event("attached")?;
    let began = Instant::now();
    assert_eq!(attach.stop()?.code(), Some(0));
    ensure!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // The next one goes on from there.
    rig.run(&["attach", &target(&app), "--restart", "none", "--once"])?.code(0)?;
    rig.run(&["verify", &target(&app)])?.code(0)?;
    Ok(())
}

/// An agent of another version: the other end of a session is a program that says so.
#[test]
fn another_version_is_exit_code_4() -> Result<()> {
    let rig = Rig::new()?;
    let programs = rig.other("programs");
    fs::create_dir(&programs)?;
    // Made by other processes: a program that this one holds open for writing while it forks elsewhere is busy.
    let install = |from: &std::path::Path, name: &str| {
        let to = programs.join(name);
        let made = std::process::Command::new("install").args(["-m", "755"]).arg(from).arg(&to).status()?;
        ensure!(made.success(), "install {}", to.display());
        anyhow::Ok(())
    };
    install(&rig.devsync.programs.join("devsync"), "devsync")?;
    let script = rig.other("script");
    fs::write(&script, "#!/bin/sh\nprintf 'DEVSYNC\\n\\310\\000\\000\\000'; cat > /dev/null\n")?;
    install(&script, "devsync-agent")?;
    let devsync = devsync_tests::attach::Devsync::new(programs, rig.other("home2"))?;
    let pid = format!("pid/{}", std::process::id());
    let said = crate::rig::run(devsync.command(&rig.laptop, &["attach", &pid]))?.code(4)?;
    said.says(&["error: ", "different versions", "version 200", "hint: "])?;
    Ok(())
}

/// The same at the end of a real SSH server, as in a pod: its login is good, and its subsystem is of another version.
#[test]
#[ignore = "needs: root"]
fn another_version_behind_ssh_is_exit_code_4() -> Result<()> {
    let rig = Rig::new()?;
    let subsystem = rig.other("subsystem");
    fs::write(&subsystem, "#!/bin/sh\nprintf 'DEVSYNC\\n\\310\\000\\000\\000'; cat > /dev/null\n")?;
    let made = std::process::Command::new("chmod").arg("755").arg(&subsystem).status()?;
    ensure!(made.success());
    let sshd = devsync_tests::bench::sshd::Sshd::with(
        &rig.other("sshd"),
        &format!("Subsystem devsync {}\n", subsystem.display()),
    )?;
    let (target, identity) =
        (format!("ssh/root@127.0.0.1:{}", sshd.port), sshd.identity.display().to_string());
    let host_key = fs::read_to_string(rig.other("sshd").join("host.pub"))?;
    let words = ["attach", &target, "--identity", &identity, "--host-key", host_key.trim()];
    let said = rig.run(&words)?.code(4)?;
    said.says(&["error: ", "different versions", "version 200", "version 1", "hint: "])?;
    Ok(())
}

/// A file that nobody may change, until it is dropped.
struct Immutable(std::path::PathBuf);

impl Immutable {
    fn new(path: std::path::PathBuf) -> Result<Self> {
        let made = std::process::Command::new("chattr").arg("+i").arg(&path).status()?;
        ensure!(made.success(), "chattr +i (e2fsprogs), on a file system that has it");
        Ok(Self(path))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = std::process::Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
#[ignore = "needs: root"]
fn a_path_that_cannot_be_written_fails_once() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    fs::write(rig.pod.join("fixed.txt"), "theirs")?;
    let _fixed = Immutable::new(rig.pod.join("fixed.txt"))?;
    fs::write(rig.laptop.join("fixed.txt"), "ours")?;
    fs::write(rig.laptop.join("other.txt"), "ours")?;
    let said = rig.run(&["attach", &target(&app), "--restart", "none", "--once"])?.code(1)?;
    said.says(&["not synced: ", "fixed.txt", "error: 1 path not synced"])?;
    assert_eq!(fs::read(rig.pod.join("fixed.txt"))?, b"theirs");
    assert_eq!(fs::read(rig.pod.join("other.txt"))?, b"ours");
    Ok(())
}
