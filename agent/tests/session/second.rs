//! One session at a time writes to an app, and to a directory.

use std::process::{Child, Command, Stdio};

use devsync_protocol::message::RootOptions;

use crate::compare::world;
use crate::laptop::file_op;
use crate::peer::Peer;

#[test]
#[ignore = "needs: root"]
fn a_second_session_is_refused_by_the_name_of_the_first_until_that_ends() {
    let world = world();
    let state = tempfile::tempdir().expect("a directory");
    let mut first = Peer::named("ann@laptop", world.pid(), state.path());
    first.open("/app");
    let mut second = Peer::named("bob", world.pid(), state.path());
    let refusal = second.refused("/app", RootOptions::default());
    assert!(refusal.cause.contains("ann@laptop"), "{refusal:?}");
    assert!(refusal.hint.is_some());
    // Looking is allowed.
    second.close();
    let mut looker = Peer::named("bob", world.pid(), state.path());
    looker.open_with("/app", RootOptions { dry_run: true, ..RootOptions::default() });
    looker.close();
    assert!(first.batch(vec![file_op("a", 0o644, b"a")]).applied);
    first.close();
    let mut third = Peer::named("bob", world.pid(), state.path());
    third.open("/app");
    assert!(third.batch(vec![file_op("a", 0o644, b"b")]).applied);
}

/// Another process with the app's mounts and root.
struct Sibling(Child);

impl Sibling {
    fn of(pid: u32) -> Self {
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--root",
            "--setuid=1000",
            "--setgid=1000",
            "--target",
            &pid.to_string(),
            "cat",
        ]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("nsenter");
        let sibling = Self(child);
        let root = format!("/proc/{}/root", sibling.0.id());
        crate::harness::wait_for("the sibling", || {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", sibling.0.id())).ok()?;
            (comm.trim() == "cat" && std::fs::read_link(&root).ok()?.ends_with("root")).then_some(())
        });
        sibling
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs: root"]
fn a_directory_is_written_for_one_process_at_a_time() {
    let world = world();
    let sibling = Sibling::of(world.pid());
    let state = tempfile::tempdir().expect("a directory");
    let mut first = Peer::named("ann@laptop", world.pid(), state.path());
    first.open("/app");
    let mut second = Peer::named("bob", sibling.0.id(), state.path());
    let refusal = second.refused("/app", RootOptions::default());
    assert!(refusal.cause.contains("ann@laptop"), "{refusal:?}");
    // Another directory is another matter.
    let mut third = Peer::named("bob", sibling.0.id(), state.path());
    second.close();
    third.open_with("/etc", RootOptions { dry_run: false, ..RootOptions::default() });
}
