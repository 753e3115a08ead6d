//! `devsync-agent inetd` under OpenSSH: the connection is ssh's own child, on its standard streams.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::rig::{Rig, Root, built, until};

/// The inodes of the sockets that somebody listens on here.
fn listening() -> Vec<String> {
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).expect("a table"));
    let lines = tables.iter().flat_map(|table| table.lines());
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields.get(3) == Some(&"0A")).map(|fields| fields[9].to_owned()).collect()
}

/// The inodes of a process's sockets.
fn sockets(pid: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

#[test]
#[ignore = "needs: root"]
fn one_connection_is_served_and_nothing_listens() {
    let rig = Rig::start(Root::Debian);
    let key = fs::read_to_string(rig.path("id.pub")).expect("a key");
    let proxy = format!(
        "ProxyCommand={} inetd --state {} --target pid/{} --key '{}'",
        built("devsync-agent").display(),
        rig.path("inetd").display(),
        rig.app(),
        key.trim()
    );
    let mut ssh = Command::new("ssh");
    // Its host key is new each time and printed before the greeting; here nobody reads it.
    ssh.args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    ssh.args(["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", &proxy, "-i"]).arg(rig.path("id"));
    ssh.args(["any@where", "echo up; cat; echo $APP; exit 7"]);
    let mut ssh = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh");
    let mut answer = ssh.stdout.take().expect("piped");
    let mut up = [0; 3];
    answer.read_exact(&mut up).expect("read");
    let children = format!("/proc/{0}/task/{0}/children", ssh.id());
    let agent = fs::read_to_string(children).expect("children").trim().to_owned();
    let (open, listening) = (sockets(&agent), listening());
    assert!(!open.is_empty() && !open.iter().any(|socket| listening.contains(socket)), "{open:?}");
    // More than all buffers hold, at once there and back; then the end of input, and what follows it.
    let sent: Vec<u8> = (0..20_u32 << 20).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let mut input = ssh.stdin.take().expect("piped");
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let mut came = Vec::new();
    answer.read_to_end(&mut came).expect("read");
    writing.join().expect("joined").expect("written");
    assert!(came.strip_suffix(b"yes\n") == Some(&sent[..]), "{} bytes", came.len());
    assert_eq!(ssh.wait().expect("ended").code(), Some(7));
    until("the agent is gone", || !fs::exists(format!("/proc/{agent}")).expect("asked"));
}
