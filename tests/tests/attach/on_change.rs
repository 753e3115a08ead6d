//! Commands that run in the container after certain files came, and before the restart.

use std::fs;
use std::os::unix::fs::chown;

use anyhow::{Context, Result, ensure};
use devsync_tests::app::UID;
use serde_json::Value;

use crate::rig::{Rig, ask};
use crate::ssh::Server;

/// The app's answer is made by a command from what is synced; it refuses what is empty.
const SETTINGS: &str = "restart = 'reexec'
[[on_change]]
paths = ['/answer.txt']
run = ['sh', '-c', 'echo making; test -s answer.txt && { printf \"ANSWER = \\\"%s\\\"\\n\" \"$(cat answer.txt)\" > made.py; }']

[[on_change]]
paths = ['*.never']
run = ['false']
";

fn rig() -> Result<Rig> {
    let rig = Rig::new()?;
    let source = crate::rig::source("one").replace("ANSWER = \"one\"", "from made import ANSWER");
    for side in [&rig.laptop, &rig.pod] {
        fs::write(side.join("app.py"), &source)?;
        fs::write(side.join("devsync.toml"), SETTINGS)?;
    }
    fs::write(rig.pod.join("made.py"), "ANSWER = 'zero'\n")?;
    chown(rig.pod.join("made.py"), Some(UID), Some(UID))?;
    Ok(rig)
}

fn word(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or_default()
}

/// Events until one of this name, which is the last of them.
fn until(attach: &devsync_tests::attach::Attach, name: &str) -> Result<Vec<Value>> {
    let mut said: Vec<Value> = Vec::new();
    loop {
        let line = attach.events.recv_timeout(std::time::Duration::from_secs(60));
        let event: Value = serde_json::from_str(&line.with_context(|| format!("no {name} in {said:?}"))?)?;
        said.push(event);
        if said.last().is_some_and(|event| event["event"] == name) {
            return Ok(said);
        }
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
#[ignore = "needs: root"]
fn a_command_runs_after_its_file_came_and_before_the_restart() -> Result<()> {
    let rig = rig()?;
    let app = rig.app()?;
    let attach = rig.attach(&app, &[])?;
    fs::write(rig.laptop.join("answer.txt"), "two")?;
    let said = until(&attach, "ready")?;
    let order: Vec<&str> = names(&said).into_iter().filter(|name| *name != "synced").collect();
    ensure!(
        order == ["command_started", "command_output", "command_ended", "restarted", "ready"],
        "{said:?}"
    );
    ensure!(said.iter().any(|event| event["line"] == "making"), "{said:?}");
    ensure!(word(&ask(&app)?) == "two", "{}", ask(&app)?);
    // What nobody asked for is not run.
    fs::write(rig.laptop.join("other.txt"), "x")?;
    let said = until(&attach, "ready")?;
    ensure!(!names(&said).contains(&"command_started"), "{said:?}");
    attach.stop()?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_command_that_fails_keeps_the_old_process_until_it_is_mended() -> Result<()> {
    let rig = rig()?;
    let app = rig.app()?;
    let attach = rig.attach(&app, &[])?;
    fs::write(rig.laptop.join("answer.txt"), "")?;
    let said = until(&attach, "command_failed")?;
    let failed = said.last().context("one")?;
    ensure!(failed["cause"] == "it ended with exit code 1" && failed["hint"].is_string(), "{failed}");
    // The next save tries again, whatever it is about, and restarts nothing either.
    fs::write(rig.laptop.join("other.txt"), "x")?;
    let said = until(&attach, "command_failed")?;
    ensure!(!names(&said).contains(&"restarted"), "{said:?}");
    ensure!(word(&ask(&app)?) == "zero", "{}", ask(&app)?);
    fs::write(rig.laptop.join("answer.txt"), "mended")?;
    let said = until(&attach, "ready")?;
    ensure!(names(&said).contains(&"command_ended"), "{said:?}");
    ensure!(word(&ask(&app)?) == "mended", "{}", ask(&app)?);
    attach.stop()?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn with_once_a_command_that_fails_is_the_end() -> Result<()> {
    let rig = rig()?;
    let app = rig.app()?;
    let target = crate::rig::target(&app);
    fs::write(rig.laptop.join("answer.txt"), "")?;
    let failed = rig.run(&["attach", &target, "--once"])?.code(1)?;
    let failed = failed.says(&["failed: it ended with exit code 1", "was not restarted"])?;
    ensure!(failed.out.contains("sh | making\n"), "{failed:?}");
    ensure!(word(&ask(&app)?) == "zero", "{}", ask(&app)?);
    fs::write(rig.laptop.join("answer.txt"), "once")?;
    rig.run(&["attach", &target, "--once"])?.code(0)?;
    ensure!(word(&ask(&app)?) == "once", "{}", ask(&app)?);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_agent_that_is_reached_by_its_address_runs_them_too() -> Result<()> {
    let rig = rig()?;
    let app = rig.app()?;
    let server = Server::start(&rig, &app)?;
    let mut attach = server.attach(&rig, &[])?;
    attach.first_sync()?;
    fs::write(rig.laptop.join("answer.txt"), "far")?;
    let said = until(&attach, "ready")?;
    ensure!(names(&said).contains(&"command_ended"), "{said:?}");
    ensure!(word(&ask(&app)?) == "far", "{}", ask(&app)?);
    attach.stop()?;
    Ok(())
}
