//! From the pod to the laptop: what was asked for, and to nowhere else.

use std::fs;

use anyhow::{Result, ensure};

use crate::rig::{Rig, names, target};

#[test]
#[ignore = "needs: root"]
fn a_file_and_a_directory_come() -> Result<()> {
    let rig = Rig::new()?;
    fs::create_dir_all(rig.pod.join("logs/old"))?;
    fs::write(rig.pod.join("logs/a.log"), "a")?;
    fs::write(rig.pod.join("logs/old/b.log"), "b")?;
    let app = rig.app()?;
    let target = target(&app);
    let into = rig.other("into");
    fs::create_dir(&into)?;
    let to = into.display().to_string();
    rig.run(&["pull", "logs/a.log", &target, "--into", &to])?.code(0)?;
    assert_eq!(fs::read(into.join("a.log"))?, b"a");
    rig.run(&["pull", "logs", &target, "--into", &to])?.code(0)?;
    assert_eq!(fs::read(into.join("logs/old/b.log"))?, b"b");
    // An attach that runs is asked instead, and what is here stays.
    let attach = rig.attach(&app, &["--restart", "none"])?;
    fs::write(rig.pod.join("logs/a.log"), "newer")?;
    let said = rig.run(&["pull", "logs", "--into", &to])?;
    ensure!(said.err.contains("skipped: ") && said.err.contains("a.log"), "{said:?}");
    assert_eq!(fs::read(into.join("logs/a.log"))?, b"a");
    rig.run(&["pull", "logs", "--into", &to, "--overwrite"])?.code(0)?;
    assert_eq!(fs::read(into.join("logs/a.log"))?, b"newer");
    assert_eq!(attach.stop()?.code(), Some(0));
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn what_is_not_there_is_named() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let target = target(&app);
    rig.run(&["pull", "missing.txt", &target])?.code(1)?.says(&["error: ", "missing.txt"])?;
    rig.run(&["pull", "app.py", &target, "--into", "nowhere"])?.code(2)?.says(&["error: ", "nowhere"])?;
    // A path is no argument of a shell, and a name above the root is the root's.
    rig.run(&["pull", "", &target])?.code(1)?.says(&["error: "])?;
    assert_eq!(names(&rig.laptop)?, ["app.py"]);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_link_leads_nothing_out_of_the_directory() -> Result<()> {
    let rig = Rig::new()?;
    fs::create_dir(rig.pod.join("dir"))?;
    fs::write(rig.pod.join("dir/file"), "theirs")?;
    std::os::unix::fs::symlink("/etc/passwd", rig.pod.join("dir/link"))?;
    let app = rig.app()?;
    let (into, outside) = (rig.other("into"), rig.other("outside"));
    fs::create_dir(&into)?;
    fs::create_dir(&outside)?;
    std::os::unix::fs::symlink(&outside, into.join("dir"))?;
    let words = ["pull", "dir", &target(&app), "--overwrite", "--into", &into.display().to_string()];
    let said = rig.run(&words)?;
    assert_eq!(names(&outside)?, Vec::<String>::new(), "{said:?}");
    Ok(())
}
