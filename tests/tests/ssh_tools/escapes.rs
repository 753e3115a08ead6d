//! Paths out of the app's root, for each request of SFTP: the agent's files are never read, changed or listed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::rig::{Rig, Root, run, said};

/// A rig whose app has laid every trap that is known, and a secret that lies outside of its root.
fn rig() -> Rig {
    Rig::with(
        Root::Scratch,
        |at| {
            fs::create_dir(at.join("outside")).expect("made");
            fs::write(at.join("outside/secret"), "secret").expect("written");
            let inside = at.join("root/srv/app");
            let outside = at.join("outside");
            symlink(&outside, inside.join("absolute")).expect("linked");
            symlink("../../../../../../../..", inside.join("up")).expect("linked");
            symlink("/proc/1/root", inside.join("magic")).expect("linked");
            symlink("/proc/self/fd/0", inside.join("descriptor")).expect("linked");
            symlink("/proc/1/environ", inside.join("environ")).expect("linked");
            fs::write(inside.join("own"), "own").expect("written");
        },
        &[],
    )
}

#[test]
#[ignore = "needs: root"]
fn no_request_leaves_the_apps_root() {
    let rig = rig();
    let outside = rig.path("outside");
    let before = run(Command::new("ls").args(["-lnR", "--time-style=full-iso"]).arg(&outside));
    let mine = rig.path("laptop/mine");
    fs::write(&mine, "mine").expect("written");
    let secret = outside.join("secret");
    let out = outside.display();
    let traps = [
        format!("{out}"),
        "absolute".to_owned(),
        format!("up{out}"),
        format!("magic{out}"),
        format!("/../../../../..{out}"),
        format!("/proc/1/root{out}"),
    ];
    for trap in &traps {
        for request in [
            format!("get {trap}/secret stolen"),
            format!("put {} {trap}/new", mine.display()),
            format!("put {} {trap}/secret", mine.display()),
            format!("ls {trap}/secret"),
            format!("rm {trap}/secret"),
            format!("rename {trap}/secret own"),
            format!("rename own {trap}/secret"),
            format!("chmod 777 {trap}/secret"),
            format!("chown 1 {trap}/secret"),
            format!("mkdir {trap}/made"),
            format!("rmdir {trap}"),
            format!("ln {trap}/secret hard"),
            format!("ln -s x {trap}/soft"),
            format!("cd {trap}/."),
        ] {
            let done = rig.sftp(&request);
            assert!(!done.status.success(), "{request}: {done:?}");
        }
    }
    for request in ["get descriptor", "get environ", "get magic", "get /proc/self/exe", "ls -l /proc/"] {
        let done = rig.sftp(request);
        assert!(!done.status.success(), "{request}: {done:?}");
    }
    // A link that leads nowhere is listed as what it is, and nothing behind it.
    let listed = rig.sftp("ls magic/");
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "sftp> ls magic/\nmagic/", "{listed:?}");
    let after = run(Command::new("ls").args(["-lnR", "--time-style=full-iso"]).arg(&outside));
    assert_eq!(after, before);
    assert_eq!(fs::read_to_string(&secret).expect("read"), "secret");
    assert!(!rig.path("laptop/stolen").exists());
    assert_eq!(fs::read_to_string(rig.path("root/srv/app/own")).expect("read"), "own");
}

#[test]
#[ignore = "needs: root"]
fn the_apps_own_links_mean_what_they_mean_to_the_app() {
    let rig = rig();
    // `up` ends at the app's root, and an absolute link begins there.
    symlink("/srv/app/own", rig.path("root/srv/app/link")).expect("linked");
    let done = rig.sftp("get link\nls up/srv/app/own\ncd ../../..\npwd\n");
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(fs::read_to_string(rig.path("laptop/link")).expect("read"), "own");
    assert!(String::from_utf8_lossy(&done.stdout).contains("Remote working directory: /\n"), "{done:?}");
}

#[test]
#[ignore = "needs: root"]
fn what_is_no_file_is_not_opened() {
    let rig = rig();
    run(Command::new("mkfifo").arg(rig.path("root/srv/app/fifo")));
    run(Command::new("mknod").arg(rig.path("root/srv/app/zero")).args(["c", "1", "5"]));
    for name in ["fifo", "zero"] {
        let done = rig.sftp(&format!("get {name}"));
        assert!(!done.status.success(), "{name}: {done:?}");
    }
}
