//! One target is attached to once at a time.

use anyhow::{Result, ensure};

use crate::rig::{Rig, target};

#[test]
#[ignore = "needs: root"]
fn the_second_is_told_who_was_first() -> Result<()> {
    let rig = Rig::new()?;
    let (app, other) = (rig.app()?, rig.app()?);
    let first = rig.attach(&app, &["--restart", "none"])?;
    let target = target(&app);
    let pid = format!("process {}", first.pid());
    let here = rig.laptop.display().to_string();
    let words = ["error: ", &target, &pid, &here, "since ", "hint: "];
    rig.run(&["attach", &target, "--restart", "none"])?.code(1)?.says(&words)?;
    // Looking on is allowed, and so is another target from the same directory.
    rig.run(&["attach", &target, "--dry-run"])?.code(0)?;
    let second = rig.attach(&other, &["--restart", "none"])?;
    let said = rig.run(&["status"])?.code(0)?;
    ensure!(said.out.matches("attached from").count() == 2, "{said:?}");
    // With two of them a command must say which.
    rig.run(&["verify"])?.code(2)?.says(&["error: ", "hint: "])?;
    rig.run(&["verify", &target])?.code(0)?;
    assert_eq!(second.stop()?.code(), Some(0));
    assert_eq!(first.stop()?.code(), Some(0));
    rig.run(&["attach", &target, "--restart", "none", "--once"])?.code(0)?;
    Ok(())
}

/// The runtime directories differ, as for two users: then the agent knows.
#[test]
#[ignore = "needs: root"]
fn the_agent_refuses_a_second_client_too() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let first = rig.attach(&app, &["--restart", "none"])?;
    let runtime = rig.other("runtime");
    std::fs::create_dir(&runtime)?;
    let mut command = rig.devsync.command(&rig.laptop, &["attach", &target(&app), "--restart", "none"]);
    command.env("XDG_RUNTIME_DIR", &runtime);
    crate::rig::run(command)?.code(1)?.says(&["error: ", "since", "hint: "])?;
    assert_eq!(first.stop()?.code(), Some(0));
    Ok(())
}
