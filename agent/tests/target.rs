//! Which process is the app, and that no other process is ever taken for it.

#[path = "target_world/world.rs"]
mod world;

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use devsync_agent::sys::proc::{Namespace, ProcDir, ProcError};
use devsync_agent::target::error::TargetError;
use devsync_agent::target::find::{FindError, Query, Target, find};
use devsync_agent::target::identity::Identity;
use devsync_agent::target::report;
use devsync_agent::target::root::TargetRoot;
use devsync_protocol::target::{AccessClass, Confinement};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use world::{As, World, with_and_without_openat2};

/// A process that ends with the test or when it is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat"))
    }

    fn end(&mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn vanished<T: std::fmt::Debug>(result: Result<T, TargetError>) -> bool {
    let error = result.expect_err("it is gone");
    error.errno() == Some(Errno::ESRCH) && error.hint().is_some_and(|h| h.contains("attach again"))
}

#[test]
#[ignore = "needs: root"]
fn a_vanished_app_is_esrch_everywhere() {
    let mut world = World::start(As::User(65532, 65532), |_| {});
    let identity = Arc::new(Identity::open(world.pid()).expect("identity"));
    let root = TargetRoot::open(Arc::clone(&identity)).expect("root");
    let sync = root.sync_root(b"/app").expect("sync root");
    identity.still_there().expect("it lives");
    identity.signal(0).expect("it may be signalled");
    assert_eq!(identity.pidfd().wait_exit(PollTimeout::ZERO), Ok(false));
    world.end_app();
    assert_eq!(identity.pidfd().wait_exit(PollTimeout::NONE), Ok(true));
    assert!(
        vanished(identity.still_there()) && vanished(identity.is_alive()) && vanished(identity.signal(0))
    );
    assert!(
        vanished(sync.directory(b"")) && vanished(sync.parent(b"x")) && vanished(sync.mkdir_all(b"d", 0o755))
    );
    assert!(vanished(root.sync_root(b"/app").and_then(|s| s.directory(b""))));
    assert!(vanished(TargetRoot::open(Arc::clone(&identity))));
    assert!(vanished(Identity::open(world.pid())));
    assert_eq!(identity.proc().stat(), Err(ProcError::Vanished { pid: world.pid() }));
}

#[test]
#[ignore = "needs: root"]
fn threads_zombies_kernel_threads_and_nonsense_are_no_apps() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid().as_raw()).expect("send");
        let _ = ended.recv();
    });
    let tid = u32::try_from(told.recv().expect("recv")).expect("an id");
    assert!(matches!(Identity::open(tid), Err(TargetError::NoAccess { .. })));
    drop(end);
    thread.join().expect("join");

    let mut zombie = Command::new("true").spawn().expect("true");
    let pidfd = devsync_agent::sys::pidfd::PidFd::open(zombie.id()).expect("pidfd");
    assert_eq!(pidfd.wait_exit(PollTimeout::NONE), Ok(true));
    assert!(vanished(Identity::open(zombie.id())));
    zombie.wait().expect("wait");

    // kthreadd, where the test sees the machine's own processes.
    if ProcDir::open(2).and_then(|p| p.stat()).is_ok_and(|s| s.is_kernel_thread()) {
        let error = Identity::open(2).expect_err("a kernel thread").to_string();
        assert!(error.contains("kernel"), "{error}");
        assert_eq!(find(&Query::Pid(2)), Err(FindError::NoProcess(2)));
    }
    assert!(Identity::open(0).is_err());
    assert!(vanished(Identity::open(4_194_305)));
    assert_eq!(find(&Query::Pid(std::process::id())), Err(FindError::Itself(std::process::id())));
}

#[test]
#[ignore = "needs: root"]
fn an_execve_is_the_same_process() {
    let (mut child, mut stdin, identity) = becomes("exec cat");
    identity.still_there().expect("the same process");
    assert_eq!(identity.proc().cmdline().expect("argv"), [b"cat".to_vec()]);
    std::io::Write::write_all(&mut stdin, b"end\n").expect("write");
    drop(stdin);
    // Not reaped yet, the PID is still its own, and yet it is gone.
    assert_eq!(identity.pidfd().wait_exit(PollTimeout::NONE), Ok(true));
    assert!(vanished(identity.still_there()));
    child.wait().expect("wait");
}

#[test]
#[ignore = "needs: root"]
fn another_mount_namespace_is_another_target() {
    let (mut child, stdin, identity) = becomes("exec unshare --mount cat");
    identity.is_alive().expect("it lives");
    assert!(vanished(identity.still_there()));
    drop(stdin);
    child.wait().expect("wait");
}

/// A shell that was identified before it became something else, and is that now.
fn becomes(what: &str) -> (Child, std::process::ChildStdin, Identity) {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read line; {what}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let identity = Identity::open(child.id()).expect("identity");
    let mut stdin = child.stdin.take().expect("stdin");
    std::io::Write::write_all(&mut stdin, b"go\nin cat\n").expect("write");
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.as_mut().expect("stdout")),
        &mut line,
    )
    .expect("read");
    assert_eq!(line, "in cat\n");
    (child, stdin, identity)
}

const IN_PID_NAMESPACE: &str = "DEVSYNC_TEST_PID_NAMESPACE";

/// Runs `inner` as this test again, in PID and mount namespaces of its own; true in the outer process.
fn in_pid_namespace(test: &str, inner: impl FnOnce()) {
    if std::env::var_os(IN_PID_NAMESPACE).is_some() {
        return inner();
    }
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(IN_PID_NAMESPACE, "1")
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "needs: root"]
fn a_reused_pid_is_neither_read_nor_signalled_nor_written_to() {
    in_pid_namespace("a_reused_pid_is_neither_read_nor_signalled_nor_written_to", || {
        let mut first = Sleeper::start();
        let pid = first.0.id();
        let identity = Arc::new(Identity::open(pid).expect("identity"));
        let sync =
            TargetRoot::open(Arc::clone(&identity)).and_then(|r| r.sync_root(b"/tmp")).expect("sync root");
        let proc = ProcDir::open(pid).expect("proc");
        first.end();
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
        let mut second = Sleeper::start();
        assert_eq!(second.0.id(), pid, "the PID was not reused");
        assert!(vanished(identity.still_there()) && vanished(identity.signal(9)));
        assert!(vanished(sync.parent(b"x")) && vanished(TargetRoot::open(identity)));
        assert_eq!(proc.stat(), Err(ProcError::Vanished { pid }));
        assert_eq!(proc.cmdline(), Err(ProcError::Vanished { pid }));
        // The newcomer was not hurt: it ends by itself, with 0.
        drop(second.0.stdin.take());
        let status = second.0.wait().expect("wait");
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    });
}

#[test]
#[ignore = "needs: root"]
fn the_only_app_of_a_pid_namespace_is_found() {
    in_pid_namespace("the_only_app_of_a_pid_namespace_is_found", || {
        assert!(matches!(find(&Query::Only), Err(FindError::NothingHere { .. })));
        let _beside = Sleeper::start();
        let world = World::start(As::User(65532, 65532), |_| {});
        let want = Target { supervisor: None, app: world.pid(), container: None };
        assert_eq!(find(&Query::Only), Ok(want.clone()));
        let namespace = world.target().identity().mount_namespace();
        assert_eq!(find(&Query::MountNamespace(namespace)), Ok(want));
        let other = World::start(As::Root, |_| {});
        let error = find(&Query::Only).expect_err("two").to_string();
        assert!(error.contains(&format!("pid/{} \"cat\"", world.pid())), "{error}");
        assert!(error.contains(&format!("pid/{} \"cat\"", other.pid())), "{error}");
        let own = ProcDir::own().and_then(|p| p.namespace(Namespace::Mount)).expect("own namespace");
        assert_eq!(find(&Query::MountNamespace(own)), Err(FindError::NoNamespace(own)));
    });
}

/// A cgroup of that name in whatever hierarchy the machine has; removed again.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn make(name: &str) -> Self {
        let all = std::path::Path::new("/sys/fs/cgroup");
        let hierarchy = [all.to_path_buf(), all.join("pids"), all.join("cpu")];
        let parent = hierarchy.iter().find(|h| h.join("cgroup.procs").exists()).expect("a cgroup hierarchy");
        fs::create_dir(parent.join(name)).expect("mkdir");
        Self(parent.join(name))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Busy until the last process is reaped, which is at once.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
#[ignore = "needs: root"]
fn a_container_is_found_by_its_id() {
    let id = format!("{:064x}", u128::from(std::process::id()) << 64 | 0xdead_beef);
    let cgroup = Cgroup::make(&format!("cri-containerd-{id}.scope"));
    let mut world = World::start(As::Root, |_| {});
    fs::write(cgroup.0.join("cgroup.procs"), world.pid().to_string()).expect("move");
    let want = Target { supervisor: None, app: world.pid(), container: Some(id.clone()) };
    assert_eq!(find(&Query::Container(id.clone())), Ok(want.clone()));
    assert_eq!(find(&Query::Container(id[..60].to_owned())), Ok(want.clone()));
    assert_eq!(find(&Query::Pid(world.pid())), Ok(want));
    assert!(matches!(find(&Query::Container("ffffffffffff".to_owned())), Err(FindError::NoContainer(_))));
    world.end_app();
}

#[test]
#[ignore = "needs: root"]
fn under_devsync_run_the_child_is_the_app() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = dir.path().join("devsync-run");
    // Any program of that name that starts the app as its child.
    fs::copy("/bin/sh", &run).expect("copy");
    let mut parent = Command::new(&run)
        .args(["-c", "exec 3<&0; cat <&3 & wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("spawn");
    std::io::Write::write_all(parent.stdin.as_mut().expect("stdin"), b"up\n").expect("write");
    let mut out = std::io::BufReader::new(parent.stdout.take().expect("stdout"));
    std::io::BufRead::read_line(&mut out, &mut String::new()).expect("read");
    let target = find(&Query::Pid(parent.id())).expect("a target");
    assert_eq!((target.supervisor, target.root_pid()), (Some(parent.id()), parent.id()));
    assert_ne!(target.app, parent.id());
    assert_eq!(find(&Query::Pid(target.app)), Ok(target.clone()));
    assert_eq!(ProcDir::open(target.app).and_then(|p| p.cmdline()).expect("argv"), [b"cat".to_vec()]);
    drop(parent.stdin.take());
    parent.wait().expect("wait");
}

#[test]
#[ignore = "needs: root"]
fn the_report_says_who_the_app_is() {
    with_and_without_openat2(|variant| {
        let world = World::start(As::RootDefaultCaps, |_| {});
        let target = Target { supervisor: None, app: world.pid(), container: None };
        let report = report::describe(&target).expect("a report");
        assert_eq!((report.pid, report.uid, report.gid), (world.pid(), 0, 0));
        assert_eq!(report.exe, b"/usr/bin/cat", "as the app names it, not as the agent does");
        assert_eq!((report.cwd.as_slice(), report.argv), (&b"/"[..], vec![b"cat".to_vec()]));
        assert!(
            report.capabilities.to_string().starts_with("CHOWN, DAC_OVERRIDE"),
            "{}",
            report.capabilities
        );
        assert_eq!(report.access, AccessClass::SameIds);
        let want = if variant == "openat2" { Confinement::Openat2 } else { Confinement::Walk };
        assert_eq!(report.confinement, Some(want));
        assert!(report.root.is_permitted() && report.ptrace.is_permitted());
        let directories: Vec<_> = report.write.iter().map(|d| d.directory.as_slice()).collect();
        assert_eq!(directories, [&b"/"[..], b"/usr/bin"]);
    });
}

#[test]
#[ignore = "needs: root"]
fn a_replaced_executable_keeps_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("odd ) name (x");
    fs::copy("/bin/cat", &exe).expect("copy");
    let mut child = Command::new(&exe).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("spawn");
    std::io::Write::write_all(child.stdin.as_mut().expect("stdin"), b"up\n").expect("write");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    std::io::BufRead::read_line(&mut out, &mut String::new()).expect("read");
    fs::remove_file(&exe).expect("unlink");
    let proc = ProcDir::open(child.id()).expect("proc");
    assert_eq!(proc.exe().expect("exe"), std::os::unix::ffi::OsStrExt::as_bytes(exe.as_os_str()));
    assert_eq!(proc.stat().expect("stat").parent, std::process::id());
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut proc.open_exe().expect("the very file"), &mut bytes).expect("read");
    assert_eq!(bytes, fs::read("/bin/cat").expect("read"));
    drop(child.stdin.take());
    child.wait().expect("wait");
}
