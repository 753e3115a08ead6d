//! One that is early, late, slow, dead, or not alone.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::peer::AGENT;
use crate::sidecar::{Sidecar, end_of, stderr};

#[test]
fn a_caller_waits_for_a_server_that_is_not_up_yet() {
    let sidecar = Sidecar::start();
    let (state, away) = (sidecar.state(), sidecar.path("away"));
    sidecar.keygen("ann");
    std::fs::rename(&state, &away).expect("renamed");
    let key = std::fs::read_to_string(sidecar.path("ann.pub")).expect("public key");
    let mut command = Command::new(AGENT);
    command.args(["authorize", "--key", key.trim(), "--state"]).arg(&state).stdout(Stdio::null());
    let mut waiting = command.stderr(Stdio::piped()).spawn().expect("runs");
    std::thread::sleep(Duration::from_millis(300));
    assert!(waiting.try_wait().expect("waited").is_none(), "it waits");
    std::fs::rename(&away, &state).expect("renamed");
    let (status, text) = end_of(waiting);
    assert!(status.success(), "{text}");
}

#[test]
fn without_a_server_the_caller_says_so() {
    let directory = tempfile::tempdir().expect("temp directory");
    let mut command = Command::new(AGENT);
    command.args(["authorize", "--key", "ssh-ed25519 AAAA", "--state"]).arg(directory.path());
    let begin = Instant::now();
    let output = command.output().expect("runs");
    assert!(begin.elapsed() >= Duration::from_secs(9), "it waits for one");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("no agent serves") && text.contains("hint:"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

/// A caller that says nothing.
fn silent(sidecar: &Sidecar) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    let address = UnixAddr::new(&sidecar.state().join("authorize.sock")).expect("an address");
    connect(fd.as_raw_fd(), &address).expect("connected");
    fd
}

#[test]
fn silent_callers_do_not_hold_up_another() {
    let sidecar = Sidecar::start();
    // Fewer than there are places for: at once.
    let few: Vec<OwnedFd> = (0..4).map(|_| silent(&sidecar)).collect();
    let begin = Instant::now();
    sidecar.authorize("ann", &[]);
    assert!(begin.elapsed() < Duration::from_secs(4));
    // More: as soon as the first of them are put out.
    let many: Vec<OwnedFd> = (0..12).map(|_| silent(&sidecar)).collect();
    sidecar.authorize("bob", &[]);
    assert!(sidecar.lets_in("ann") && sidecar.lets_in("bob"));
    drop((few, many));
}

#[test]
fn a_taken_port_is_left_to_its_owner() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address");
    let sidecar = Sidecar::with(Command::new(AGENT), &["--listen", &address.to_string()]);
    let authorized = sidecar.authorize("ann", &[]);
    assert_eq!(authorized.listen.ip(), address.ip());
    assert_ne!(authorized.listen.port(), address.port());
    assert!(sidecar.lets_in("ann"));
}

#[test]
fn a_dead_agent_s_socket_is_replaced_and_its_host_key_kept() {
    let sidecar = Sidecar::start();
    let before = sidecar.authorize("ann", &[]);
    let sidecar = sidecar.again();
    // Keys live as long as the agent.
    assert!(!sidecar.lets_in("ann"));
    let after = sidecar.authorize("bob", &[]);
    assert_eq!(before.host_key, after.host_key);
    assert!(sidecar.lets_in("bob"));
}

#[test]
fn two_agents_do_not_share_a_state_directory() {
    let sidecar = Sidecar::start();
    let mut second = Command::new(AGENT);
    second.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(sidecar.state());
    let second = second.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
    let (status, text) = end_of(second);
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("another agent serves"), "{text}");
    sidecar.authorize("ann", &[]);
}

#[test]
fn an_agent_that_is_told_to_stop_ends_in_order() {
    let mut sidecar = Sidecar::start();
    let stop = |state: &std::path::Path| {
        let mut command = Command::new(AGENT);
        command.args(["stop", "--state"]).arg(state).output().expect("runs")
    };
    let output = stop(&sidecar.state());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(sidecar.agent.0.wait().expect("waited").success());
    let output = stop(&sidecar.state());
    assert!(stderr(&output).contains("no agent serves"), "{}", stderr(&output));
}

#[test]
fn as_whom_the_app_runs_is_told() {
    let sidecar = Sidecar::start();
    let app = format!("pid/{}", sidecar.app.0.id());
    let output = Command::new(AGENT).args(["ids", "--target", &app]).output().expect("runs");
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("ids {uid}:{gid}\n"));
    let nobody = Command::new(AGENT).args(["ids", "--target", "pid/4194304"]).output().expect("runs");
    assert!(!nobody.status.success() && stderr(&nobody).contains("is not here"), "{}", stderr(&nobody));
}
