//! An app in a mount namespace and root of its own, agents with other credentials, and a kernel without openat2.
//! Everything ends with the test: the app reads a pipe that the test holds.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use devsync_agent::target::identity::Identity;
use devsync_agent::target::root::{SyncRoot, TargetRoot};
use nix::errno::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What container runtimes give root, as setpriv's words.
pub const DEFAULT_CAPS: &str = "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,\
                                +setpcap,+net_bind_service,+sys_chroot,+mknod,+audit_write,+setfcap";
pub const NO_CAPS: &str = "--bounding-set=-all";

/// The credentials of the app.
#[derive(Clone, Copy)]
pub enum As {
    User(u32, u32),
    RootDefaultCaps,
    RootNoCaps,
    Root,
}

pub struct World {
    pub dir: tempfile::TempDir,
    child: Child,
}

impl World {
    /// Starts `cat` as the app, chrooted in `dir/root`, in which `furnish` has put what it needs.
    pub fn start(app: As, furnish: impl FnOnce(&Path)) -> Self {
        Self::start_with(app, "", furnish)
    }

    /// `mounts`: shell lines that run in the app's mount namespace, with `$root`.
    pub fn start_with(app: As, mounts: &str, furnish: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = dir.path().join("root");
        for name in ["usr", "proc", "app", "etc"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("symlink");
        }
        furnish(&root);
        let script = format!(
            "root=$1; shift; mount --rbind /usr \"$root/usr\"; mount --bind /proc \"$root/proc\"\n{mounts}\nexec \"$@\""
        );
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-ec", &script, "sh"])
            .arg(&root)
            .args(command(app, &root))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut world = Self { dir, child };
        world.wait_ready();
        world
    }

    /// What is written to `cat` comes back once it runs.
    fn wait_ready(&mut self) {
        self.child.stdin.as_mut().expect("stdin").write_all(b"ready\n").expect("the app reads");
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("the app answers");
        assert_eq!(line, "ready\n", "the app did not start");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The app's root, as this test sees it.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn app(&self, path: &str) -> PathBuf {
        self.root().join("app").join(path)
    }

    pub fn target(&self) -> TargetRoot {
        target(self.pid())
    }

    pub fn sync_root(&self) -> SyncRoot {
        self.target().sync_root(b"/app").expect("the sync root")
    }

    /// Ends the app and reaps it.
    pub fn end_app(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(app: As, root: &Path) -> Vec<OsString> {
    let root = root.as_os_str().to_owned();
    let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
    match app {
        As::User(uid, gid) => {
            [words(&["chroot", &format!("--userspec={uid}:{gid}"), "--groups="]), vec![root], words(&["cat"])]
                .concat()
        }
        As::RootDefaultCaps => {
            [words(&["chroot"]), vec![root], words(&["setpriv", DEFAULT_CAPS, "--inh-caps=-all", "cat"])]
                .concat()
        }
        As::RootNoCaps => {
            [words(&["chroot"]), vec![root], words(&["setpriv", NO_CAPS, "--inh-caps=-all", "cat"])].concat()
        }
        As::Root => [words(&["chroot"]), vec![root], words(&["cat"])].concat(),
    }
}

pub fn target(pid: u32) -> TargetRoot {
    TargetRoot::open(Arc::new(Identity::open(pid).expect("identity"))).expect("target root")
}

/// What an agent with other credentials is told by the test that started it.
pub struct Inside {
    pub pid: u32,
    pub root: PathBuf,
}

const INSIDE: &str = "DEVSYNC_TEST_INSIDE";

/// Runs `inner` in a copy of this test executable started by `setpriv PRIVILEGES`; `test` is the test's own name.
/// Gives back the world in the outer process, None in the inner one.
pub fn as_agent(
    test: &str,
    privileges: &[&str],
    outer: impl FnOnce() -> World,
    inner: impl FnOnce(&Inside),
) -> Option<World> {
    if let Ok(told) = std::env::var(INSIDE) {
        let (pid, root) = told.split_once(':').expect("PID:ROOT");
        inner(&Inside { pid: pid.parse().expect("a pid"), root: root.into() });
        return None;
    }
    let world = outer();
    // A copy: the build directory may be closed to other users.
    let exe = world.dir.path().join("agent");
    fs::copy(std::env::current_exe().expect("own path"), &exe).expect("copy");
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).expect("chmod");
    let output = Command::new("setpriv")
        .args(privileges)
        .arg(&exe)
        .args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, format!("{}:{}", world.pid(), world.root().display()))
        .current_dir("/")
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "the agent's side failed:\n{text}\n{complaint}"
    );
    Some(world)
}

/// Runs `body` with openat2, and with openat2 taken away by seccomp in the two ways that exist.
pub fn with_and_without_openat2(body: impl Fn(&str) + Sync) {
    for (name, errno) in [("openat2", None), ("ENOSYS", Some(Errno::ENOSYS)), ("EPERM", Some(Errno::EPERM))] {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                if let Some(errno) = errno {
                    take_openat2_away(errno);
                }
                body(name);
            });
            assert!(run.join().is_ok(), "failed in the variant {name}");
        });
    }
}

/// For the calling thread and what it starts.
fn take_openat2_away(errno: Errno) {
    let rules = BTreeMap::from([(nix::libc::SYS_openat2, Vec::new())]);
    let refuse = SeccompAction::Errno(errno as i32 as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("seccomp");
}

/// Everything about a tree that a write could change: names, kinds, modes, owners, times, contents.
pub fn fingerprint(tree: &Path) -> String {
    let output = Command::new("sh")
        .args([
            "-ec",
            "cd \"$1\"; find . -printf '%p %y %m %U %G %T@ %C@ %l\\n' | sort; find . -type f -exec cat {} +",
            "sh",
        ])
        .arg(tree)
        .output()
        .expect("find");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
