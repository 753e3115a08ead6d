//! What is deleted, what is only shown, and what is done once.

use std::fs;

use anyhow::{Result, ensure};

use crate::rig::{Rig, ask, names, target};

/// An app with files that are not ours, one of them excluded here.
fn shared() -> Result<Rig> {
    let rig = Rig::new()?;
    fs::write(rig.laptop.join(".gitignore"), "*.log\n")?;
    fs::create_dir(rig.pod.join("theirs"))?;
    for name in ["foreign.txt", "app.log", "theirs/deep.txt", "theirs/kept.log"] {
        fs::write(rig.pod.join(name), "theirs")?;
    }
    Ok(rig)
}

#[test]
#[ignore = "needs: root"]
fn foreign_files_stay_unless_they_are_to_go() -> Result<()> {
    let rig = shared()?;
    let app = rig.app()?;
    let words = ["attach", &target(&app), "--restart", "none", "--once"];
    rig.run(&words)?.code(0)?;
    for name in ["foreign.txt", "app.log", "theirs/deep.txt"] {
        assert!(rig.pod.join(name).exists(), "{name}");
    }
    rig.run(&[&words[..], &["--delete"]].concat())?.code(0)?;
    for name in ["foreign.txt", "theirs/deep.txt"] {
        assert!(!rig.pod.join(name).exists(), "{name}");
    }
    for name in ["app.log", "theirs/kept.log", "app.py"] {
        assert!(rig.pod.join(name).exists(), "{name}");
    }
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn what_is_excluded_here_is_not_touched_there() -> Result<()> {
    let rig = shared()?;
    let app = rig.app()?;
    fs::write(rig.laptop.join("app.log"), "ours")?;
    fs::write(rig.laptop.join("secret.env"), "ours")?;
    let target = target(&app);
    let words = ["attach", &target, "--restart", "none", "--once", "--exclude", "*.env"];
    rig.run(&words)?.code(0)?;
    assert_eq!(fs::read(rig.pod.join("app.log"))?, b"theirs");
    assert!(!rig.pod.join("secret.env").exists());
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_dry_run_writes_nothing() -> Result<()> {
    let rig = shared()?;
    let app = rig.app()?;
    rig.save("two")?;
    fs::write(rig.laptop.join("new.txt"), "new")?;
    let there = rig.in_pod()?;
    let said = rig.run(&["attach", &target(&app), "--dry-run", "--delete"])?.code(0)?;
    for (change, name) in [("update", "app.py"), ("add", "new.txt"), ("delete", "foreign.txt")] {
        let line = format!("would {change} {}\n", rig.pod.join(name).display());
        ensure!(said.out.contains(&line), "no {line:?} in {}", said.out);
    }
    ensure!(said.out.contains("nothing was written") && !said.out.contains(".log"), "{}", said.out);
    assert_eq!(rig.in_pod()?, there);
    assert_eq!(fs::read_to_string(rig.pod.join("app.py"))?, crate::rig::source("one"));
    ensure!(ask(&app)?.starts_with("one "), "not restarted");
    assert_eq!(names(&rig.pod.join("theirs"))?.len(), 2);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn once_is_one_sync_and_one_restart() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    rig.save("two")?;
    let said = rig.run(&["attach", &target(&app), "--once"])?.code(0)?;
    ensure!(said.out.contains("synced 1 file") && said.out.contains("(same PID"), "{said:?}");
    ensure!(ask(&app)?.starts_with("two "));
    let said = rig.run(&["attach", &target(&app), "--once"])?.code(0)?;
    ensure!(said.out.contains("nothing to sync"), "{said:?}");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_directory_goes_where_it_is_told_to() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    fs::create_dir(rig.laptop.join("assets"))?;
    fs::write(rig.laptop.join("assets/a.txt"), "a")?;
    fs::create_dir(rig.pod.join("static"))?;
    let words = ["attach", &target(&app), "--sync", "assets:static", "--restart", "none", "--once"];
    rig.run(&words)?.code(0)?;
    assert_eq!(names(&rig.pod.join("static"))?, ["a.txt"]);
    Ok(())
}
