//! An app in a root of one static program: the agent's toolbox is its shell, and leaves nothing there.

use std::fs;
use std::process::Command;

use crate::rig::{Rig, Root, output, run, said};

#[test]
#[ignore = "needs: root"]
fn the_toolbox_runs_in_a_root_that_has_nothing() {
    let rig = Rig::start(Root::Scratch);
    let before = run(Command::new("find").arg(rig.path("root")));
    assert_eq!(rig.says("pwd; echo $APP"), "/srv/app\nyes\n");
    assert_eq!(
        rig.says("ls /").split_whitespace().collect::<Vec<_>>(),
        ["app", "dev", "etc", "proc", "srv", "tmp"]
    );
    assert!(rig.says("ps").contains("/app"));
    assert_eq!(rig.says("head -c 4 /app | cat | od -An -c | tr -d ' '"), "177ELF\n");
    assert_eq!(rig.says("id -u"), "65532\n");
    // A server of the busybox of this machine, on the network that they share.
    fs::write(rig.path("laptop/page"), "hello\n").expect("written");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("address").port();
    let served = std::thread::spawn(move || -> std::io::Result<()> {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept()?;
        let _ = stream.read(&mut [0; 1024])?;
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
    });
    assert_eq!(rig.says(&format!("wget -q -O - http://127.0.0.1:{port}/page")), "hello\n");
    served.join().expect("joined").expect("served");
    assert_eq!(run(Command::new("find").arg(rig.path("root"))), before, "something was left");
}

#[test]
#[ignore = "needs: root"]
fn the_toolbox_cannot_be_changed_from_within() {
    let rig = Rig::start(Root::Scratch);
    let tried = output(&mut rig.ssh("echo x > /proc/$$/exe"));
    assert!(!tried.status.success(), "{}", said(&tried));
    let same =
        fs::read(rig.path("toolbox/busybox")).expect("read") == fs::read("/usr/bin/busybox").expect("read");
    assert!(same);
}

#[test]
#[ignore = "needs: root"]
fn without_shell_and_toolbox_it_is_said() {
    let rig =
        Rig::with(Root::Scratch, |at| fs::remove_file(at.join("toolbox/busybox")).expect("removed"), &[]);
    let refused = output(&mut rig.ssh("ls /"));
    assert_eq!(refused.status.code(), Some(255));
    assert!(refused.stdout.is_empty(), "the agent's own root was listed");
    for word in ["no shell", "toolbox", "DEVSYNC_TOOLBOX", "hint:"] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
}

#[test]
#[ignore = "needs: root"]
fn without_the_right_to_change_its_root_nothing_is_run() {
    for root in [Root::Scratch, Root::Debian] {
        let rig = Rig::restricted(root);
        let refused = output(&mut rig.ssh("ls /"));
        assert_eq!(refused.status.code(), Some(255));
        assert!(refused.stdout.is_empty(), "the agent's own root was listed");
        assert!(
            said(&refused).contains("SYS_CHROOT") && said(&refused).contains("hint: `devsync shell"),
            "{}",
            said(&refused)
        );
        // Files need no capability.
        fs::write(rig.path("laptop/file"), "file").expect("written");
        let put = rig.sftp("put file\nls -l file\nget file back");
        assert!(put.status.success(), "{}", said(&put));
        assert_eq!(fs::read_to_string(rig.path("laptop/back")).expect("read"), "file");
    }
}
