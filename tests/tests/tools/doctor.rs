//! `doctor` on a process of this machine: what is predicted is what comes of trying, and nothing is left behind.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place, UID};
use serde_json::Value;

use crate::rig::{Rig, both};

fn app(rig: &Rig) -> Result<App> {
    App::start(&Place::Directory(rig.path("pod")), &["sh", "-c", "echo up; exec sleep 1000"], "up")
}

/// The findings of the last part, which is the app's.
fn of_app(output: &Output) -> Result<Vec<Value>> {
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| both(output))?;
    let parts = said["parts"].as_array().context("parts")?;
    Ok(parts.last().context("a part")?["findings"].as_array().context("findings")?.clone())
}

fn topic<'f>(found: &'f [Value], topic: &str) -> Result<&'f Value> {
    found.iter().find(|finding| finding["topic"] == topic).with_context(|| format!("no {topic} in {found:?}"))
}

#[test]
#[ignore = "needs: root"]
fn doctor_tries_what_it_predicts_and_leaves_nothing() -> Result<()> {
    let rig = Rig::new()?;
    let app = app(&rig)?;
    let target = format!("pid/{}", app.pid());
    let said = rig.command(&["doctor", &target, "-o", "json"]).output()?;
    ensure!(said.status.code() == Some(0), "{}", both(&said));
    let found = of_app(&said)?;
    for (name, words) in
        [("root", "tried"), ("files", "can be written"), ("restart", "reexec"), ("kernel", "openat2")]
    {
        let finding = topic(&found, name)?;
        ensure!(finding["level"] == "ok", "{finding}");
        ensure!(finding["text"].as_str().is_some_and(|text| text.contains(words)), "{finding}");
    }
    let editors = topic(&found, "editors")?;
    ensure!(editors["level"] == "ok", "{editors}");
    ensure!(fs::read_dir(rig.path("pod"))?.next().is_none(), "something was left");
    let words = rig.command(&["doctor", &target]).output()?;
    ensure!(
        both(&words).contains("laptop\n") && both(&words).contains(&format!("{target}\n")),
        "{}",
        both(&words)
    );
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn doctor_says_what_an_editors_server_would_lack() -> Result<()> {
    let rig = Rig::new()?;
    // Of the machine's own files all is there, but for a home of the app's.
    let home = rig.path("pod").to_string_lossy().into_owned();
    chown(&home, Some(UID), Some(UID))?;
    let script = "echo up; exec sleep 1000";
    for (home, words) in [
        (home.as_str(), vec!["find what they need: /", "tar, glibc 2.", &home]),
        ("/nonexistent", vec!["the home /nonexistent cannot be written: it does not exist"]),
        ("/etc", vec!["the home /etc cannot be written"]),
    ] {
        let variable = format!("HOME={home}");
        let app =
            App::start(&Place::Directory(rig.path("pod")), &["env", &variable, "sh", "-c", script], "up")?;
        let said = rig.command(&["doctor", &format!("pid/{}", app.pid()), "-o", "json"]).output()?;
        let text = topic(&of_app(&said)?, "editors")?["text"].as_str().unwrap_or_default().to_owned();
        ensure!(words.iter().all(|word| text.contains(word)), "{text}");
    }
    // Nothing at all.
    let rig = Rig::new()?;
    let app = rig.start(&rig.rust()?)?;
    let said = rig.command(&["doctor", &format!("pid/{}", app.pid()), "-o", "json"]).output()?;
    let text = topic(&of_app(&said)?, "editors")?["text"].as_str().unwrap_or_default().to_owned();
    ensure!(
        said.status.code() == Some(0) && text.contains("the image has no shell; the image has no glibc"),
        "{text}"
    );
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn doctor_says_what_an_agent_with_too_little_lacks() -> Result<()> {
    let rig = Rig::new()?;
    let app = app(&rig)?;
    let target = format!("pid/{}", app.pid());
    let whole = rig.command(&["doctor", &target, "-o", "json"]);
    let mut less = Command::new("setpriv");
    less.args(["--bounding-set=-sys_ptrace,-setuid,-setgid", "--"])
        .arg(whole.get_program())
        .args(whole.get_args());
    less.current_dir(rig.dir.path());
    whole.get_envs().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| {
        less.env(name, value);
    });
    let said = less.output()?;
    ensure!(said.status.code() == Some(1), "{}", both(&said));
    let root = topic(&of_app(&said)?, "root")?.clone();
    ensure!(root["level"] == "problem", "{root}");
    let text = root["text"].as_str().unwrap_or_default();
    ensure!(text.contains("SETUID") && text.ends_with("as predicted, and tried"), "{root}");
    ensure!(root["fix"].as_str().is_some_and(|fix| fix.contains("runAsUser: 65532")), "{root}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn doctor_fails_where_there_is_a_problem() -> Result<()> {
    let rig = Rig::new()?;
    let gone = rig.command(&["doctor", "pid/4194304"]).output()?;
    ensure!(gone.status.code() == Some(1) && both(&gone).contains("1 problem"), "{}", both(&gone));
    ensure!(both(&gone).contains("process 4194304 is not here"), "{}", both(&gone));
    // A file that cannot be read is told beside the rest.
    fs::write(rig.path("devsync.toml"), "sync = 7\n")?;
    let broken = rig.command(&["doctor", "pid/4194304"]).output()?;
    ensure!(
        both(&broken).contains("devsync.toml:1: sync: ") && both(&broken).contains("2 problems"),
        "{}",
        both(&broken)
    );
    // Without a target: the laptop, and the cluster as far as there is one.
    fs::remove_file(rig.path("devsync.toml"))?;
    let kubeconfig = rig.path("none").to_string_lossy().into_owned();
    let here = rig.command(&["doctor", "--kubeconfig", &kubeconfig]).output()?;
    ensure!(here.status.code() == Some(0) && both(&here).contains("warning  kubeconfig"), "{}", both(&here));
    let named = rig.command(&["doctor", "deploy/x", "--kubeconfig", &kubeconfig]).output()?;
    ensure!(
        named.status.code() == Some(1) && both(&named).contains("problem  kubeconfig"),
        "{}",
        both(&named)
    );
    Ok(())
}
