//! `ps` on a process of this machine: those beside it and no others, harmless on a terminal.

use anyhow::{Context, Result, ensure};
use devsync_tests::app::{App, Place};
use serde_json::Value;

use crate::rig::{Rig, both};

/// Listens, has a child, and calls itself what a terminal would obey.
const APP: &str = "import socket, subprocess, sys
s = socket.create_server(('127.0.0.1', 8080))
c = subprocess.Popen(['sleep', '1000'])
print('up', flush=True)
c.wait()";
const EVIL: &str = "\u{1b}[2Jevil\n1\t1\t0";

#[test]
#[ignore = "needs: root"]
fn ps_shows_the_processes_beside_the_app_and_no_others() -> Result<()> {
    let rig = Rig::new()?;
    let place = Place::Directory(rig.path("pod"));
    let app = App::start(&place, &["/usr/bin/python3", "-c", APP, EVIL], "up")?;
    let target = format!("pid/{}", app.pid());
    let said = rig.command(&["ps", &target, "-o", "json"]).output()?;
    ensure!(said.status.success(), "{}", both(&said));
    let text = String::from_utf8(said.stdout)?;
    let rows: Vec<Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(text.clone())?;
    let own = rows.iter().find(|row| row["pid"] == app.pid()).with_context(|| format!("{rows:?}"))?;
    ensure!(own["uid"] == 65532 && own["ports"] == serde_json::json!([8080]), "{own}");
    ensure!(own["rss"].as_u64().is_some_and(|rss| rss > 1 << 20), "{own}");
    ensure!(own["exe"].as_str().is_some_and(|exe| exe.starts_with("/usr/bin/python3")), "{own}");
    ensure!(
        own["argv"][3].as_str().is_some_and(|word| word.contains("evil") && !word.contains(['\u{1b}', '\n'])),
        "{own}"
    );
    let child = rows.iter().find(|row| row["parent"] == app.pid()).with_context(|| format!("{rows:?}"))?;
    ensure!(child["argv"] == serde_json::json!(["sleep", "1000"]), "{child}");
    ensure!(rows.iter().all(|row| row["pid"] != std::process::id() && row["agent"] == false), "{rows:?}");
    let table = both(&rig.command(&["ps", &target]).output()?);
    ensure!(table.contains("COMMAND") && table.contains(" 8080 ") && !table.contains('\u{1b}'), "{table}");
    let gone = rig.command(&["ps", "pid/4194304"]).output()?;
    ensure!(gone.status.code() == Some(1) && both(&gone).contains("4194304 is not here"), "{}", both(&gone));
    Ok(())
}
