//! `ssh`: who gets in, programs and how they end, what they get of the agent, what the key's options forbid.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::rig::{Rig, Root, output, run, said, stop, until};

#[test]
#[ignore = "needs: root"]
fn a_program_has_the_apps_world_and_nothing_of_the_agents() {
    let rig = Rig::start(Root::Debian);
    let project = rig.path("project");
    assert_eq!(rig.says("pwd").trim_end(), project.to_str().expect("text"));
    assert_eq!(rig.says("id -u; id -g; id -G"), "65532\n65532\n65532\n");
    assert_eq!(rig.says("echo $APP $HOME"), format!("yes {}\n", project.display()));
    let status = rig.says("grep -E '^(Cap|NoNewPrivs|SigIgn|SigBlk)' /proc/self/status");
    for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(status.contains("SigIgn:\t0000000000000000") && status.contains("SigBlk:\t0000000000000000"));
    // ls itself has the directory open.
    assert_eq!(rig.says("ls /proc/self/fd | wc -l").trim(), "4");
    let environment = rig.says("env");
    assert!(!environment.contains("DEVSYNC"), "{environment}");
    // The agent cannot be looked into from there.
    let agent = rig.says("pgrep -o devsync-agent");
    let looked = output(&mut rig.ssh(&format!("ls /proc/{}/root /proc/{0}/fd", agent.trim())));
    assert!(!looked.status.success() && said(&looked).contains("Permission denied"), "{}", said(&looked));
}

#[test]
#[ignore = "needs: root"]
fn the_exit_status_is_the_programs() {
    let rig = Rig::start(Root::Debian);
    for (command, code) in [("true", 0), ("false", 1), ("exit 137", 137), ("no-such-program", 127)] {
        assert_eq!(output(&mut rig.ssh(command)).status.code(), Some(code), "{command}");
    }
    // A signal is told as one, which OpenSSH's client makes -1 of.
    let killed = output(rig.tool("ssh").args(["-v", "pod", "kill -9 $$"]));
    assert_eq!(killed.status.code(), Some(255));
    assert!(said(&killed).contains("exit-signal"), "{}", said(&killed));
}

#[test]
#[ignore = "needs: root"]
fn both_outputs_and_the_end_of_input_arrive() {
    let rig = Rig::start(Root::Debian);
    let mut child = rig
        .ssh("cat; echo to stderr >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh");
    let bytes: Vec<u8> =
        (0..8_000_000_u32).flat_map(|n| (n % 251).to_le_bytes().into_iter().take(1)).collect();
    let mut input = child.stdin.take().expect("piped");
    let sent = bytes.clone();
    let writing = std::thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output().expect("ended");
    writing.join().expect("joined").expect("written");
    assert!(output.stdout == bytes && said(&output) == "to stderr\n", "{}", said(&output));
}

#[test]
#[ignore = "needs: root"]
fn a_client_that_goes_takes_its_programs_with_it() {
    let rig = Rig::start(Root::Debian);
    let mut ssh = rig.ssh("sleep 4711 & sleep 4711").spawn().expect("ssh");
    let sleepers = || rig.says("pgrep -cf '^sleep 4711' || true").trim().to_owned();
    until("both sleep", || sleepers() == "2");
    stop(&mut ssh);
    until("none sleeps", || sleepers() == "0");
    let zombies = rig.says("ps -eo stat | grep -c ^Z || true");
    assert_eq!(zombies.trim(), "0");
}

#[test]
#[ignore = "needs: root"]
fn twenty_sessions_share_one_connection() {
    let rig = Rig::start(Root::Debian);
    let socket = rig.path("control");
    let control = format!("ControlPath={}", socket.display());
    let mut master = rig.tool("ssh");
    let mut master = master.args(["-o", &control, "-MN", "pod"]).spawn().expect("ssh");
    until("the master listens", || socket.exists());
    let sessions: Vec<_> = (0..20)
        .map(|n| {
            let command = format!("sleep 0.2; echo {n}");
            let mut ssh = rig.tool("ssh");
            ssh.args(["-o", &control, "pod", &command]).stdout(Stdio::piped()).spawn().expect("ssh")
        })
        .collect();
    for (n, session) in sessions.into_iter().enumerate() {
        assert_eq!(session.wait_with_output().expect("ended").stdout, format!("{n}\n").into_bytes());
    }
    assert_eq!(rig.log().matches(" login ").count(), 1);
    run(rig.tool("ssh").args(["-o", &control, "-O", "exit", "pod"]));
    master.wait().expect("ended");
}

#[test]
#[ignore = "needs: root"]
fn keys_are_exchanged_anew_under_load() {
    let rig = Rig::start(Root::Debian);
    // All of it there and back at once; each direction counts for a new exchange.
    let blocks = std::env::var("DEVSYNC_TEST_REKEY_MIB").map_or(512, |amount| amount.parse().expect("MiB"));
    let mut ssh = rig.tool("ssh");
    ssh.args(["-v", "-o", "RekeyLimit=1M", "pod", "cat"])
        .stderr(fs::File::create(rig.path("said")).expect("made"));
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh");
    let mut input = child.stdin.take().expect("piped");
    let block = |n: u32| vec![u8::try_from(n % 251).expect("a byte"); 1 << 20];
    let writing = std::thread::spawn(move || (0..blocks).try_for_each(|n| input.write_all(&block(n))));
    let mut answer = child.stdout.take().expect("piped");
    let mut came = vec![0; 1 << 20];
    for n in 0..blocks {
        answer.read_exact(&mut came).expect("read");
        assert!(came == block(n), "MiB {n}");
    }
    assert_eq!(answer.read(&mut came).expect("read"), 0);
    writing.join().expect("joined").expect("written");
    assert!(child.wait().expect("ended").success());
    let said = fs::read_to_string(rig.path("said")).expect("read");
    let exchanges = said.matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges >= usize::try_from(blocks).expect("a number"), "{exchanges} key exchanges");
}

#[test]
#[ignore = "needs: root"]
fn what_a_keys_options_forbid_is_refused() {
    let rig = Rig::start(Root::Debian);
    let key = fs::read_to_string(rig.path("id.pub")).expect("a key");
    let options = |options: &str| fs::write(rig.path("keys"), format!("{options} {key}")).expect("written");

    options("restrict");
    assert_eq!(rig.says("echo fine"), "fine\n");
    let terminal = output(rig.tool("ssh").args(["-o", "LogLevel=INFO", "-tt", "pod", "tty"]));
    assert!(said(&terminal).contains("PTY allocation request failed"), "{}", said(&terminal));
    let forward = output(rig.tool("ssh").args(["-W", "127.0.0.1:1", "pod"]));
    assert!(
        !forward.status.success() && rig.log().contains("the key's options forbid it"),
        "{}",
        said(&forward)
    );
    let reverse = output(rig.tool("ssh").args([
        "-o",
        "ExitOnForwardFailure=yes",
        "-R",
        "0:127.0.0.1:1",
        "pod",
        "true",
    ]));
    assert!(!reverse.status.success(), "{reverse:?}");

    options("command=\"echo forced: $SSH_ORIGINAL_COMMAND\"");
    assert_eq!(rig.says("rm -rf /"), "forced: rm -rf /\n");
    let sftp = rig.sftp("ls");
    assert!(!sftp.status.success(), "{sftp:?}");

    options("command=\"internal-sftp\"");
    assert!(rig.sftp("pwd").status.success());

    options("expiry-time=\"20200101Z\"");
    assert!(said(&output(&mut rig.ssh("true"))).contains("Permission denied"));
    assert!(rig.log().contains("the key has expired"));
}

#[test]
#[ignore = "needs: root"]
fn requests_that_are_not_known_are_answered() {
    let rig = Rig::start(Root::Debian);
    let subsystem = output(rig.tool("ssh").args(["-s", "pod", "netconf"]));
    assert!(said(&subsystem).contains("subsystem request failed"), "{}", said(&subsystem));
    let agent =
        rig.tool("ssh").args(["-A", "-X", "pod", "echo $DISPLAY$SSH_AUTH_SOCK"]).output().expect("ssh");
    assert_eq!(agent.stdout, b"\n");
}

#[test]
#[ignore = "needs: root"]
fn another_host_key_is_refused_before_anything_is_said() {
    let rig = Rig::start(Root::Debian);
    let other = Rig::start(Root::Debian);
    let known = fs::read_to_string(rig.path("known")).expect("known");
    let theirs = known.replace(&rig.port.to_string(), &other.port.to_string());
    fs::write(other.path("known"), theirs).expect("written");
    let refused = output(&mut other.ssh("true"));
    assert!(
        !refused.status.success() && said(&refused).contains("verification failed"),
        "{}",
        said(&refused)
    );
    assert!(!other.log().contains(" login "), "{}", other.log());
}
