//! Files that cannot be synced, or only with care.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use devsync_tests::app::UID;
use devsync_tests::attach::Devsync;
use nix::sys::stat::Mode;

use crate::rig::{Rig, run, target};

#[test]
#[ignore = "needs: root"]
fn what_is_no_file_is_skipped_and_said_once() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    nix::unistd::mkfifo(&rig.laptop.join("fifo"), Mode::S_IRWXU)?;
    let _socket = UnixListener::bind(rig.laptop.join("socket"))?;
    let mut attach = rig.attach_unsynced(&app, &["--restart", "none"])?;
    let mut said = attach.first_sync()?;
    for i in 0..3 {
        fs::write(rig.laptop.join("other.txt"), i.to_string())?;
        attach.event_where("synced", |_| true)?;
    }
    attach.stop()?;
    said.retain(|line| line.contains("\"skipped\""));
    ensure!(said.len() == 2, "{said:?}");
    ensure!(said.iter().any(|s| s.contains("fifo")) && said.iter().any(|s| s.contains("socket")), "{said:?}");
    assert_eq!(rig.in_pod()?, ["app.py", "other.txt"]);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn names_of_any_bytes_arrive_and_are_escaped_in_words() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let names: [&[u8]; 5] =
        [b"new\nline", b"esc\x1b[31m", b"bytes\xff\xfe", b" space ", "ümläut\u{202e}".as_bytes()];
    for name in names {
        fs::write(rig.laptop.join(OsStr::from_bytes(name)), name)?;
    }
    let words = ["attach", &target(&app), "--restart", "none"];
    let said = rig.run(&[&words[..], &["--dry-run"]].concat())?.code(0)?;
    let bad = |text: &str| text.contains(['\u{1b}', '\u{202e}', '\u{fffd}']) || text.contains("new\nline");
    ensure!(!bad(&said.out) && !bad(&said.err), "{said:?}");
    ensure!(said.out.contains("would add"), "{said:?}");
    rig.run(&[&words[..], &["--once"]].concat())?.code(0)?;
    for name in names {
        assert_eq!(fs::read(rig.pod.join(OsStr::from_bytes(name)))?, name);
    }
    rig.run(&["verify", &target(&app)])?.code(0)?;
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_path_that_is_too_long_is_skipped_by_name() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let deep =
        "import os\nfor i in range(20):\n os.mkdir('d' * 250); os.chdir('d' * 250)\nopen('f', 'w').close()";
    let made = Command::new("python3").args(["-c", deep]).current_dir(&rig.laptop).status()?;
    ensure!(made.success());
    fs::write(rig.laptop.join("other.txt"), "x")?;
    let said = rig.run(&["attach", &target(&app), "--restart", "none", "--once"])?.code(0)?;
    ensure!(said.err.contains("skipped: ") && said.err.contains("too long"), "{said:?}");
    assert_eq!(fs::read(rig.pod.join("other.txt"))?, b"x");
    Ok(())
}

/// As the app's own user, since root may read everything.
#[test]
#[ignore = "needs: root"]
fn a_file_that_cannot_be_read_is_named_and_nothing_is_deleted_for_it() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let (programs, home) = (rig.other("bin"), rig.other("home65532"));
    fs::create_dir(&programs)?;
    for name in ["devsync", "devsync-agent"] {
        let (from, to) = (rig.devsync.programs.join(name), programs.join(name));
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
    }
    let devsync = Devsync::new(programs, home.clone())?;
    for path in [&home, &home.join("run"), &rig.laptop] {
        chown(path, Some(UID), Some(UID))?;
    }
    fs::write(rig.laptop.join("secret.txt"), "1")?;
    fs::write(rig.laptop.join("other.txt"), "1")?;
    let words = ["attach", &target(&app), "--restart", "none", "--once"];
    let as_user = || {
        let command = devsync.command(&rig.laptop, &words);
        let id = UID.to_string();
        let mut user = Command::new("setpriv");
        user.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
        user.arg(command.get_program()).args(command.get_args()).current_dir(&rig.laptop);
        user.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(user)
    };
    as_user()?.code(0)?;
    fs::set_permissions(rig.laptop.join("secret.txt"), fs::Permissions::from_mode(0o000))?;
    fs::write(rig.laptop.join("secret.txt"), "2")?;
    fs::write(rig.laptop.join("other.txt"), "2")?;
    as_user()?.code(0)?.says(&["skipped: secret.txt", "ermission denied"])?;
    assert_eq!(fs::read(rig.pod.join("secret.txt"))?, b"1");
    assert_eq!(fs::read(rig.pod.join("other.txt"))?, b"2");
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn a_file_that_changes_while_it_is_read_arrives_as_it_is_at_last() -> Result<()> {
    let rig = Rig::new()?;
    let app = rig.app()?;
    let path = rig.laptop.join("growing.bin");
    let content = |n: u32| n.to_le_bytes().repeat(256 * 1024);
    fs::write(&path, content(0))?;
    let mut attach = rig.attach(&app, &["--restart", "none"])?;
    let stop = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) || n == 0 {
                n += 1;
                fs::write(&path, content(n))?;
            }
            anyhow::Ok(n)
        });
        // Saves that come while it changes.
        let seen = (0..3).try_for_each(|i| {
            fs::write(rig.laptop.join("other.txt"), i.to_string())?;
            attach.event("synced").map(drop)
        });
        stop.store(true, Ordering::Relaxed);
        let last = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        seen.and(last)
    })?;
    while fs::read(rig.pod.join("growing.bin"))? != content(last) {
        attach.event("synced")?;
    }
    rig.run(&["verify"])?.code(0)?;
    Ok(())
}
