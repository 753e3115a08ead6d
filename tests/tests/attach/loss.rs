//! What is here gets lost while an attach runs: it ends with words, and nothing is deleted in the pod.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use devsync_tests::attach::Attach;

use crate::rig::{Rig, names, target};

/// Files beside the app: enough for the question about many deletes.
const FILES: usize = 40;

fn filled() -> Result<Rig> {
    let rig = Rig::new()?;
    for i in 0..FILES {
        fs::write(rig.laptop.join(format!("file{i}")), i.to_string())?;
    }
    Ok(rig)
}

/// Waits for the end, which must be a failure that left the pod alone; gives its words.
fn ends(rig: &Rig, attach: Attach, there: &[String]) -> Result<String> {
    let (code, events) = attach.end()?;
    let said = rig.said()?;
    ensure!(code == Some(1), "ended with {code:?}: {said} {events:?}");
    ensure!(said.contains("error: ") && said.contains("hint: "), "{said}");
    ensure!(events.iter().any(|e| e["event"] == "error" && e["hint"].is_string()), "{events:?}");
    ensure!(events.iter().all(|e| e["event"] != "synced"), "{events:?}");
    assert_eq!(rig.in_pod()?, there);
    Ok(said)
}

fn lost(how: impl Fn(&Rig) -> Result<()>) -> Result<String> {
    let rig = filled()?;
    let app = rig.app()?;
    let attach = rig.attach(&app, &["--restart", "none"])?;
    let there = rig.in_pod()?;
    ensure!(there.len() == FILES + 1, "{there:?}");
    how(&rig)?;
    ends(&rig, attach, &there)
}

#[test]
#[ignore = "needs: root"]
fn a_directory_that_vanishes_deletes_nothing() -> Result<()> {
    let said = lost(|rig| Ok(fs::rename(&rig.laptop, rig.other("elsewhere"))?))?;
    ensure!(said.contains("nothing was deleted in the pod"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_directory_that_is_removed_deletes_nothing() -> Result<()> {
    lost(|rig| Ok(fs::remove_dir_all(&rig.laptop)?)).map(drop)
}

#[test]
#[ignore = "needs: root"]
fn a_directory_that_is_emptied_deletes_nothing() -> Result<()> {
    let said = lost(|rig| {
        names(&rig.laptop)?.iter().try_for_each(|name| Ok(fs::remove_file(rig.laptop.join(name))?))
    })?;
    ensure!(said.contains(" in the pod"), "{said}");
    Ok(())
}

/// One by one, each long enough after the other to be a change of its own.
#[test]
#[ignore = "needs: root"]
fn a_directory_that_is_emptied_slowly_deletes_nothing() -> Result<()> {
    let said = lost(|rig| {
        let script = "for f in *; do rm \"$f\" && sleep 0.03; done";
        let emptied = Command::new("sh").args(["-c", script]).current_dir(&rig.laptop).status()?;
        ensure!(emptied.success());
        Ok(())
    })?;
    ensure!(said.contains(" in the pod"), "{said}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_directory_that_becomes_a_file_deletes_nothing() -> Result<()> {
    let said = lost(|rig| {
        fs::rename(&rig.laptop, rig.other("elsewhere"))?;
        Ok(fs::write(&rig.laptop, "a file")?)
    })?;
    ensure!(said.contains("nothing was deleted in the pod"), "{said}");
    Ok(())
}

/// Such a removal takes longer than what is taken for one change.
#[test]
#[ignore = "needs: root"]
fn a_large_tree_that_is_removed_deletes_nothing() -> Result<()> {
    let rig = Rig::new()?;
    for dir in 0..50 {
        let dir = rig.laptop.join(format!("dir{dir}"));
        fs::create_dir(&dir)?;
        (0..100).try_for_each(|i| fs::write(dir.join(i.to_string()), "x"))?;
    }
    let app = rig.app()?;
    let attach = rig.attach(&app, &["--restart", "none"])?;
    let there = rig.in_pod()?;
    fs::remove_dir_all(&rig.laptop)?;
    ends(&rig, attach, &there)?;
    for dir in 0..50 {
        assert_eq!(names(&rig.pod.join(format!("dir{dir}")))?.len(), 100, "dir{dir}");
    }
    Ok(())
}

/// In a directory of its own, so that the deletes are one event: a rename out of the project.
#[test]
#[ignore = "needs: root"]
fn many_deletes_are_not_made_without_being_asked_for() -> Result<()> {
    let rig = Rig::new()?;
    fs::create_dir(rig.laptop.join("sub"))?;
    for i in 0..FILES {
        fs::write(rig.laptop.join(format!("sub/file{i}")), i.to_string())?;
    }
    let app = rig.app()?;
    let attach = rig.attach(&app, &["--restart", "none"])?;
    let there = rig.in_pod()?;
    fs::rename(rig.laptop.join("sub"), rig.other("sub"))?;
    let said = ends(&rig, attach, &there)?;
    ensure!(
        said.contains("--accept-deletes") && said.contains(&format!("{} of {}", FILES + 1, FILES + 2)),
        "{said}"
    );
    assert_eq!(names(&rig.pod.join("sub"))?.len(), FILES);
    // The same question at the start of the next one.
    let words = ["attach", &target(&app), "--restart", "none", "--once"];
    rig.run(&words)?.code(1)?.says(&["error: ", "--accept-deletes"])?;
    assert_eq!(names(&rig.pod.join("sub"))?.len(), FILES);
    rig.run(&[&words[..], &["--accept-deletes"]].concat())?.code(0)?;
    assert!(!rig.pod.join("sub").exists());
    Ok(())
}
