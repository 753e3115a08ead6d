//! An app under devsync-run: restarts are its business, and a crash is held.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use devsync_tests::app::{App, Place};
use devsync_tests::attach::Attach;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{Rig, ask, run, target};

fn supervised(rig: &Rig) -> Result<App> {
    supervised_with(rig, &[], "ready")
}

/// `ready`: a word of the line that says that it is up.
fn supervised_with(rig: &Rig, options: &[&str], ready: &str) -> Result<App> {
    // Where the app's user can reach it.
    let program = rig.other("devsync-run");
    fs::copy(rig.devsync.programs.join("devsync-run"), &program)?;
    let app = ["--", "/usr/bin/python3", "-B", "app.py"];
    let words = [&[program.to_str().unwrap_or_default()], options, &app].concat();
    App::start(&Place::Directory(rig.pod.clone()), &words, ready)
}

/// In the app's network namespace, as a sidecar's agent is: devsync-run listens on an abstract socket there.
fn attach(rig: &Rig, app: &App) -> Result<Attach> {
    Attach::start(beside(rig, app, &["attach", &target(app), "-o", "json"]))
}

fn beside(rig: &Rig, app: &App, words: &[&str]) -> Command {
    let devsync = rig.devsync.command(&rig.laptop, words);
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", app.pid())).arg("--").arg(devsync.get_program());
    command.args(devsync.get_args()).current_dir(&rig.laptop).stdin(Stdio::null());
    command.envs(devsync.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
#[ignore = "needs: root"]
fn a_save_starts_the_app_anew() -> Result<()> {
    let rig = Rig::new()?;
    let app = supervised(&rig)?;
    let mut attach = attach(&rig, &app)?;
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
    let mut attach = attach(&rig, &app)?;
    attach.first_sync()?;
    let broken = format!("raise ValueError('broken on import')\n{}", crate::rig::source("two"));
    fs::write(rig.laptop.join("app.py"), broken)?;
    // One that crashes at once was not restarted, one that crashes after a moment was.
    let note = attach.any_event_where(&["note", "restart_failed"], |e| e.to_string().contains("status 1"))?;
    let (text, cause) = (note["text"].as_str().unwrap_or_default(), note["cause"].as_str());
    ensure!(
        text.lines().any(|line| line.trim() == "ValueError: broken on import")
            || cause.is_some_and(|cause| cause.contains("ValueError: broken on import")),
        "{note}"
    );
    ensure!(note["hint"].as_str().is_some_and(|h| h.contains("the next save")), "{note}");
    ensure!(app.alive(), "the container is kept");
    // By hand it crashes again, which is no success.
    run(beside(&rig, &app, &["restart"]))?.code(1)?.says(&["error: ", "ValueError: broken", "hint: "])?;
    for answer in ["three", "four"] {
        rig.save(answer)?;
        attach.event("ready")?;
        ensure!(ask(&app)?.starts_with(answer));
    }
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn once_fails_where_the_app_crashes() -> Result<()> {
    let rig = Rig::new()?;
    let app = supervised(&rig)?;
    fs::write(rig.laptop.join("app.py"), "raise ValueError('broken on import')\n")?;
    let once = ["attach", &target(&app), "--once"];
    run(beside(&rig, &app, &once))?.code(1)?.says(&["error: ", "ValueError: broken", "hint: "])?;
    rig.save("two")?;
    run(beside(&rig, &app, &once))?.code(0)?;
    // Where it will listen is not known to a session that never saw it listen.
    while !app.output.recv_timeout(Duration::from_secs(20))?.contains("ready") {}
    ensure!(ask(&app)?.starts_with("two "));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_waits_is_started_by_the_first_sync_also_where_nothing_differs() -> Result<()> {
    for changes in [true, false] {
        let rig = Rig::new()?;
        let app = supervised_with(&rig, &["--wait"], "first sync")?;
        if changes {
            rig.save("two")?;
        }
        // An app that needs no restart after a save has to be started once all the same.
        let words = ["attach", &target(&app), "--restart", "none", "-o", "json"];
        let mut attach = Attach::start(beside(&rig, &app, &words))?;
        let attached = attach.event("attached")?;
        ensure!(attached["app"]["exe"].as_str().is_some_and(|exe| exe.ends_with("python3")), "{attached}");
        attach.event_where("note", |e| e.to_string().contains("app.py is waiting for its first sync"))?;
        let restarted = attach.event("restarted")?;
        ensure!(restarted["mode"] == "supervise", "{restarted}");
        while !app.output.recv_timeout(Duration::from_secs(20))?.contains("ready") {}
        ensure!(ask(&app)?.starts_with(if changes { "two " } else { "one " }));
        assert_eq!(attach.stop()?.code(), Some(0));
    }
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_attach_to_a_crashed_app_shows_why_and_the_next_save_serves() -> Result<()> {
    let rig = Rig::new()?;
    let app = supervised(&rig)?;
    fs::write(rig.laptop.join("app.py"), "raise ValueError('broken on import')\n")?;
    let once = run(beside(&rig, &app, &["attach", &target(&app), "--once"]))?.code(1)?;
    once.says(&["ValueError: broken"])?;
    let mut attach = attach(&rig, &app)?;
    let note = attach.event_where("note", |e| e.to_string().contains("app.py does not run"))?;
    let text = note["text"].as_str().unwrap_or_default();
    ensure!(text.contains("status 1") && text.contains("ValueError: broken on import"), "{text}");
    ensure!(note["hint"].as_str().is_some_and(|h| h.contains("the next save")), "{note}");
    attach.first_sync()?;
    rig.save("two")?;
    attach.event("restarted")?;
    while !app.output.recv_timeout(Duration::from_secs(20))?.contains("ready") {}
    ensure!(ask(&app)?.starts_with("two "));
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}
