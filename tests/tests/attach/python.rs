//! A python app: saves arrive and are served, and the other commands know about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};

use crate::rig::{Rig, ask, source, target};

#[test]
#[ignore = "needs: root"]
fn a_save_is_served_by_the_same_process() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let before = ask(&app)?;
    let pid = before.strip_prefix("one ").context(before.clone())?.to_owned();
    let mut attach = rig.attach(&app, &[])?;
    for answer in ["two", "three"] {
        rig.save(answer)?;
        let restarted = attach.event("restarted")?;
        ensure!(restarted["mode"] == "reexec" && restarted["old_pid"] == restarted["new_pid"], "{restarted}");
        let ready = attach.event("ready")?;
        ensure!(ready["ports"] == serde_json::json!([8080]), "{ready}");
        assert_eq!(ask(&app)?, format!("{answer} {pid}"));
    }
    assert_eq!(attach.stop()?.code(), Some(0));
    assert_eq!(ask(&app)?, format!("three {pid}"), "the app runs on");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn what_happens_to_files_here_happens_there() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    let (here, there) = (|name: &str| rig.laptop.join(name), |name: &str| rig.pod.join(name));
    fs::write(here("new.txt"), "new")?;
    attach.event("synced")?;
    assert_eq!(fs::read(there("new.txt"))?, b"new");
    fs::create_dir(here("sub"))?;
    attach.event("synced")?;
    fs::rename(here("new.txt"), here("sub/renamed.txt"))?;
    let gone = attach.event_where("synced", |e| e["deleted"] != 0)?;
    if !there("sub/renamed.txt").exists() {
        attach.event("synced").context(gone)?;
    }
    assert_eq!(fs::read(there("sub/renamed.txt"))?, b"new");
    assert!(!there("new.txt").exists());
    fs::set_permissions(here("sub/renamed.txt"), fs::Permissions::from_mode(0o755))?;
    attach.event("synced")?;
    assert_eq!(fs::metadata(there("sub/renamed.txt"))?.permissions().mode() & 0o777, 0o755);
    fs::remove_file(here("sub/renamed.txt"))?;
    attach.event_where("synced", |e| e["deleted"] != 0)?;
    assert!(!there("sub/renamed.txt").exists());
    std::os::unix::fs::symlink("app.py", here("link"))?;
    attach.event("synced")?;
    assert_eq!(fs::read_link(there("link"))?, std::path::Path::new("app.py"));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn verify_tells_equal_from_different() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let target = target(&app);
    let attach = rig.attach(&app, &["--restart", "none"])?;
    rig.run(&["verify"])?.code(0)?;
    rig.run(&["verify", &target])?.code(0)?;
    fs::write(rig.pod.join("app.py"), "edited there")?;
    let said = rig.run(&["verify"])?.code(1)?;
    ensure!(said.out.contains("app.py"), "{said:?}");
    attach.stop()?;
    // Without an attach it looks for itself.
    let said = rig.run(&["verify", &target])?.code(1)?;
    ensure!(said.out.contains("app.py"), "{said:?}");
    fs::write(rig.pod.join("app.py"), source("one"))?;
    rig.run(&["verify", &target])?.code(0)?;
    rig.run(&["verify"])?.code(2)?.says(&["error:", "hint:"])?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn status_and_restart_reach_the_running_attach() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let said = rig.run(&["status"])?.code(0)?;
    assert_eq!(said.out, "nothing is attached\n");
    let mut attach = rig.attach(&app, &[])?;
    let said = rig.run(&["status"])?.code(0)?;
    for word in [target(&app).as_str(), "app.py", rig.pod.to_str().unwrap_or_default(), "since"] {
        ensure!(said.out.contains(word), "no {word}: {said:?}");
    }
    // The new program is read at the restart, whoever wrote it.
    fs::write(rig.pod.join("app.py"), source("five"))?;
    rig.run(&["restart"])?.code(0)?;
    ensure!(ask(&app)?.starts_with("five "));
    attach.event("restarted")?;
    attach.stop()?;
    fs::write(rig.pod.join("app.py"), source("six"))?;
    rig.run(&["restart", &target(&app)])?.code(0)?;
    ensure!(ask(&app)?.starts_with("six "));
    rig.run(&["restart"])?.code(2)?.says(&["error:", "hint:"])?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn what_changed_in_the_pod_is_kept() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    fs::write(rig.laptop.join("data.txt"), "1")?;
    attach.event("synced")?;
    fs::write(rig.pod.join("data.txt"), "theirs")?;
    fs::write(rig.laptop.join("data.txt"), "ours")?;
    let conflict = attach.event("conflict")?;
    ensure!(conflict["path"].as_str().is_some_and(|p| p.ends_with("data.txt")), "{conflict}");
    assert_eq!(fs::read(rig.pod.join("data.txt"))?, b"theirs");
    let said = rig.run(&["status"])?.code(0)?;
    ensure!(said.out.contains("conflict: "), "{said:?}");
    // The others still arrive.
    fs::write(rig.laptop.join("else.txt"), "x")?;
    attach.event_where("synced", |e| e["files"] == 1)?;
    assert_eq!(fs::read(rig.pod.join("else.txt"))?, b"x");
    attach.stop()?;
    let said = rig.run(&["attach", &target(&app), "--restart", "none", "--once"])?.code(0)?;
    ensure!(said.err.contains("conflict: "), "{said:?}");
    assert_eq!(fs::read(rig.pod.join("data.txt"))?, b"theirs");
    rig.run(&["attach", &target(&app), "--restart", "none", "--once", "--overwrite"])?.code(0)?;
    assert_eq!(fs::read(rig.pod.join("data.txt"))?, b"ours");
    Ok(())
}
