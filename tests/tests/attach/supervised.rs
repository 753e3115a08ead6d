//! An app under devsync-run: restarts are its business, and a crash is held.

use std::fs;

use anyhow::{Result, ensure};
use devsync_tests::app::App;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Rig, ask};

fn supervised(rig: &Rig) -> Result<App> {
    // Where the app's user can reach it.
    let program = rig.other("devsync-run");
    fs::copy(rig.devsync.programs.join("devsync-run"), &program)?;
    rig.start(&[program.to_str().unwrap_or_default(), "--", "/usr/bin/python3", "-B", "app.py"])
}

#[test]
#[ignore = "needs: root"]
fn a_save_starts_the_app_anew() -> Result<()> {
    let rig = Rig::new()?;
    let app = supervised(&rig)?;
    let mut attach = rig.attach_unsynced(&app, &[])?;
    let attached = attach.event("attached")?;
    ensure!(attached["restart"] == "supervise", "{attached}");
    attach.event("synced")?;
    rig.save("two")?;
    let restarted = attach.event("restarted")?;
    ensure!(restarted["mode"] == "supervise" && restarted["old_pid"] != restarted["new_pid"], "{restarted}");
    attach.event("ready")?;
    ensure!(ask(&app)?.starts_with("two "));
    assert_eq!(attach.stop()?.code(), Some(0));
    ensure!(app.alive());
    kill(Pid::from_raw(app.pid()), Signal::SIGTERM)?;
    assert_eq!(app.end()?, Some(128 + Signal::SIGTERM as i32));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_crash_is_shown_and_the_next_save_serves() -> Result<()> {
    let rig = Rig::new()?;
    let app = supervised(&rig)?;
    let mut attach = rig.attach(&app, &[])?;
    let broken = format!("raise ValueError('broken on import')\n{}", crate::rig::source("two"));
    fs::write(rig.laptop.join("app.py"), broken)?;
    let is_crash = |event: &serde_json::Value| event.to_string().contains("broken on import");
    let event = attach.event_where("restart_failed", is_crash)?;
    ensure!(event.to_string().contains("app.py"), "{event}");
    ensure!(app.alive(), "the container is kept");
    for answer in ["three", "four"] {
        rig.save(answer)?;
        attach.event("ready")?;
        ensure!(ask(&app)?.starts_with(answer));
    }
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}
