//! Clients that mean harm or have trouble: many of them, silent ones, wrong ones.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::rig::{Rig, Root, output, run, stop, until};

/// Resident kilobytes of a process.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
#[ignore = "needs: root"]
fn a_thousand_silent_connections_keep_nobody_out() {
    let rig = Rig::start(Root::Debian);
    assert_eq!(rig.says("echo warm"), "warm\n");
    let before = resident(rig.agent());
    let silent: Vec<TcpStream> = (0..1000)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", rig.port)).expect("connected");
            // Half of them say something.
            if n % 2 == 0 {
                let _ = stream.write_all(b"SSH-2.0-silent\r\n");
            }
            stream
        })
        .collect();
    // A busy machine needs seconds for a thousand connections; the good client is not cut meanwhile.
    let good = run(rig.tool("ssh").args(["-o", "ConnectTimeout=20", "pod", "echo in"]));
    assert_eq!(good, "in\n");
    let grown = resident(rig.agent()).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} kB more");
    drop(silent);
}

#[test]
#[ignore = "needs: root"]
fn wrong_keys_are_counted_and_cut() {
    let rig = Rig::start(Root::Debian);
    for n in 0..5 {
        let key = rig.path(&format!("wrong{n}"));
        run(std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
    }
    let mut ssh = rig.tool("ssh");
    for n in 0..5 {
        ssh.arg("-i").arg(rig.path(&format!("wrong{n}")));
    }
    // The good one comes too late: after three the connection is good for nothing.
    let refused = output(ssh.args(["-o", "LogLevel=VERBOSE", "-o", "IdentityFile=none", "pod", "true"]));
    assert!(!refused.status.success(), "{refused:?}");
    assert!(rig.log().matches("login refused").count() <= 4, "{}", rig.log());
    assert_eq!(rig.says("echo in"), "in\n");
}

#[test]
#[ignore = "needs: root"]
fn garbage_and_huge_packets_end_the_connection_alone() {
    let rig = Rig::start(Root::Debian);
    for garbage in [&b"\xff\xff\xff\xff"[..], &b"SSH-2.0-x\r\n\xff\xff\xff\xff\0\0\0\0"[..], &[b'a'; 70_000]]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", rig.port)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(40))).expect("set");
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        // The end comes, one way or the other.
        if let Err(error) = stream.read_to_end(&mut said) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    // An SFTP packet of 4 GiB.
    let mut sftp = rig.tool("ssh");
    let mut sftp = sftp.args(["-s", "pod", "sftp"]).stdin(Stdio::piped()).spawn().expect("ssh");
    sftp.stdin.as_mut().expect("piped").write_all(&[0xff; 64]).expect("written");
    sftp.wait().expect("ended");
    until("it is in the log", || rig.log().contains("4294967295"));
    assert_eq!(rig.says("echo in"), "in\n");
}

#[test]
#[ignore = "needs: root"]
fn a_client_that_does_not_read_costs_a_bounded_amount() {
    let rig = Rig::start(Root::Debian);
    assert_eq!(rig.says("echo warm"), "warm\n");
    let before = resident(rig.agent());
    let mut ssh = rig
        .ssh("echo begun >&2; cat /dev/zero")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh");
    let mut word = [0; 5];
    ssh.stderr.as_mut().expect("piped").read_exact(&mut word).expect("begun");
    // Another is served meanwhile, again and again.
    for _ in 0..20 {
        assert_eq!(rig.says("echo in"), "in\n");
    }
    let grown = resident(rig.agent()).saturating_sub(before);
    assert!(grown < 48 * 1024, "{grown} kB more");
    stop(&mut ssh);
    until("its program is gone", || rig.says("pgrep -cf '^cat /dev/zero' || true").trim() == "0");
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_is_gone_is_said() {
    let rig = Rig::start(Root::Debian);
    rig.says("kill -9 $(pgrep -f '^sleep infinity')");
    let refused = output(&mut rig.ssh("true"));
    assert_eq!(refused.status.code(), Some(255));
    assert!(crate::rig::said(&refused).contains("hint:"), "{}", crate::rig::said(&refused));
    assert!(!rig.sftp("ls").status.success());
}
