//! Who may register a key: processes of the agent's own container, and nobody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use crate::peer::AGENT;
use crate::sidecar::{Sidecar, answer, end_of, keygen, stderr};

#[test]
fn a_registered_key_gets_in_and_the_answer_is_the_way() {
    let sidecar = Sidecar::start();
    sidecar.keygen("bob");
    assert!(!sidecar.lets_in("bob"));
    let authorized = sidecar.authorize("ann", &[]);
    assert_eq!(authorized.release, env!("CARGO_PKG_VERSION"));
    let line = format!("[127.0.0.1]:{} {}", authorized.listen.port(), authorized.host_key);
    assert_eq!(sidecar.known_hosts, line);
    assert!(sidecar.lets_in("ann"));
    assert!(!sidecar.lets_in("bob"));
    let socket = fs::metadata(sidecar.state().join("authorize.sock")).expect("a socket");
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(sidecar.state()).expect("a directory").mode() & 0o777, 0o700);
}

#[test]
fn a_key_of_the_file_gets_in_beside_registered_ones() {
    let keys = tempfile::tempdir().expect("temp directory");
    keygen(keys.path(), "file");
    let file = keys.path().join("file.pub");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    let path = file.to_str().expect("text");
    let sidecar = Sidecar::with(Command::new(AGENT), &["--listen", "127.0.0.1:0", "--authorized-keys", path]);
    fs::copy(keys.path().join("file"), sidecar.path("file")).expect("copied");
    assert!(sidecar.lets_in("file"));
    sidecar.authorize("ann", &[]);
    assert!(sidecar.lets_in("ann") && sidecar.lets_in("file"));
}

#[test]
fn a_session_is_for_the_target_of_its_key() {
    let sidecar = Sidecar::start();
    let mut other = Command::new("sleep").arg("1000").spawn().expect("another app");
    sidecar.authorize("ann", &[]);
    sidecar.authorize("bob", &["--target", &format!("pid/{}", other.id())]);
    assert_eq!(sidecar.attach("ann").report.pid, sidecar.app.0.id());
    assert_eq!(sidecar.attach("bob").report.pid, other.id());
    other.kill().expect("killed");
    other.wait().expect("waited");
}

#[test]
fn what_is_no_key_and_no_target_is_refused() {
    let sidecar = Sidecar::start();
    fs::write(sidecar.path("bad.pub"), "ssh-ed25519 AAAA").expect("written");
    let output = sidecar.ask(Command::new(AGENT), "bad", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the agent refuses the key"), "{}", stderr(&output));
    let long = format!("ssh-ed25519 {}", "A".repeat(20_000));
    fs::write(sidecar.path("long.pub"), long).expect("written");
    let output = sidecar.ask(Command::new(AGENT), "long", &[]);
    assert!(stderr(&output).contains("too long"), "{}", stderr(&output));
    sidecar.keygen("ann");
    let output = sidecar.ask(Command::new(AGENT), "ann", &["--target", "container/xyz"]);
    assert!(!output.status.success() && stderr(&output).contains("is no target"), "{}", stderr(&output));
    assert!(!sidecar.lets_in("ann"));
}

#[test]
#[ignore = "needs: root"]
fn a_process_of_another_mount_namespace_registers_nothing() {
    let sidecar = Sidecar::start();
    sidecar.keygen("app");
    // The same uid, the same PID namespace, and the socket within reach.
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", AGENT]);
    let output = sidecar.ask(elsewhere, "app", &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("is not this container's agent") || text.contains("no agent serves"), "{text}");
    assert!(!sidecar.lets_in("app"));
    answer(&sidecar.ask(Command::new(AGENT), "app", &[]));
    assert!(sidecar.lets_in("app"));
}

#[test]
#[ignore = "needs: root"]
fn a_server_of_another_mount_namespace_is_not_believed() {
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", AGENT]);
    let sidecar = Sidecar::with(elsewhere, &["--listen", "127.0.0.1:0"]);
    sidecar.keygen("ann");
    let key = fs::read_to_string(sidecar.path("ann.pub")).expect("public key");
    let mut command = Command::new(AGENT);
    command.args(["authorize", "--key", key.trim(), "--state"]).arg(sidecar.state());
    let (status, text) = end_of(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs"));
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("not this container's agent") || text.contains("no agent serves"), "{text}");
}

#[test]
#[ignore = "needs: root"]
fn in_a_volume_as_the_kubelet_makes_it_each_user_has_its_own_directory() {
    let volume = tempfile::tempdir().expect("temp directory");
    let state = volume.path().join("devsync");
    fs::create_dir(&state).expect("made");
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("chmod");
    let program = volume.path().join("devsync-agent");
    fs::copy(AGENT, &program).expect("copied");
    keygen(volume.path(), "ann");
    let key = fs::read_to_string(volume.path().join("ann.pub")).expect("public key");
    let user = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups"]).arg(&program);
        command
    };
    let mut serve = user("1234");
    serve.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(&state);
    let agent = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("serves");
    let agent = crate::sidecar::Ended(agent);
    let ask = |uid| {
        let mut command = user(uid);
        command.args(["authorize", "--key", key.trim(), "--state"]).arg(&state).output().expect("runs")
    };
    let authorized = answer(&ask("1234"));
    assert!(authorized.listen.port() > 0);
    let own = fs::metadata(state.join("1234")).expect("a directory");
    assert_eq!((own.uid(), own.mode() & 0o777), (1234, 0o700));
    let host_key = fs::metadata(state.join("1234/ssh_host_ed25519_key")).expect("a key");
    assert_eq!((host_key.uid(), host_key.mode() & 0o777), (1234, 0o600));
    // Another user finds nobody, even root: its directory would be its own.
    assert!(stderr(&ask("0")).contains("no agent serves"));
    drop(agent);
}
