//! What is wrong is named, with its remedy, and does no harm.

mod files;
mod programs;

use std::fs;

use anyhow::{Result, ensure};

use crate::rig::{Rig, target};

/// Above the largest that Linux gives.
const NO_PID: &str = "pid/4194305";

#[test]
fn a_target_that_cannot_be_is_named() -> Result<()> {
    let rig = Rig::new()?;
    rig.run(&["attach", NO_PID])?.code(1)?.says(&["error: process 4194305 is not here\nhint: "])?;
    rig.run(&["verify", NO_PID])?.code(2)?.says(&["error: process 4194305 is not here\nhint: "])?;
    for bad in ["nonsense", "pid/0", "pid/x", "pid/-1", "ssh/host", "ssh/host:99999", "", "pid/\u{1b}[31m"] {
        let said = rig.run(&["attach", bad])?.code(2)?.says(&["error: "])?;
        ensure!(!said.err.contains('\u{1b}'), "{said:?}");
    }
    rig.run(&["attach"])?.code(2)?.says(&["error: no target is named", "hint: "])?;
    Ok(())
}

#[test]
fn a_devsync_toml_that_is_wrong_is_named_with_its_line() -> Result<()> {
    let rig = Rig::new()?;
    for bad in
        ["\ntarget = 7\n", "\nunknown = true\n", "\nsync = [\":x\"]\n", "\n= =\n", "\nrestart = \"maybe\"\n"]
    {
        fs::write(rig.laptop.join("devsync.toml"), bad)?;
        rig.run(&["attach", NO_PID])?.code(2)?.says(&["error: ", "devsync.toml:2: "])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_ends_ends_the_attach() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let attach = rig.attach(&app, &["--restart", "none"])?;
    drop(app);
    let (code, _) = attach.end()?;
    let said = rig.said()?;
    ensure!(code == Some(1) && said.contains("error: the app is gone") && said.contains("hint: "), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn words_that_cannot_be_meant_are_refused_before_anything_is_written() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    rig.save("two")?;
    let target = target(&app);
    for (words, named) in [
        (&["--sync", "missing:/srv"][..], "missing"),
        (&["--sync", "app.py:../x"], "../x"),
        (&["--exe", "missing"], "missing"),
        (&["--grace", "-1"], "-1"),
        (&["--restart", "signal:no!"], "no!"),
    ] {
        let said =
            rig.run(&[&["attach", &target, "--once"][..], words].concat())?.says(&["error: ", named])?;
        ensure!(matches!(said.code, Some(1 | 2)), "{words:?}: {said:?}");
    }
    assert_eq!(fs::read_to_string(rig.pod.join("app.py"))?, crate::rig::source("one"));
    Ok(())
}
