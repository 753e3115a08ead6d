//! An agent and an app in one process namespace, as in a pod, each with mounts of its own; and OpenSSH's configuration
//! to reach it. Dropping it ends everything.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use devsync_tests::app::UID;
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the app's root holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// The machine's files, with mounts of its own.
    Debian,
    /// One static program, /proc and /dev/pts.
    Scratch,
}

pub(crate) struct Rig {
    pub(crate) directory: TempDir,
    init: Child,
    pub(crate) port: u16,
}

/// Serves for ever as the app; its directory is `/srv/app` in a scratch root.
const PROGRAM: &str =
    "int pause(void); int chdir(const char *); int main(void) { chdir(\"/srv/app\"); for (;;) pause(); }";

impl Rig {
    pub(crate) fn start(root: Root) -> Self {
        Self::with(root, |_| {}, &[])
    }

    /// The agent has the app's ids and no capability, as under the restricted Pod Security level.
    pub(crate) fn restricted(root: Root) -> Self {
        let id = UID.to_string();
        let drop = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set=-all"];
        let prepare = |at: &Path| chown(at.join("state"), Some(UID), Some(UID)).expect("owner");
        Self::begin(root, prepare, &[], &drop)
    }

    /// `prepare` gets the directory before anything starts; `options` are the agent's.
    pub(crate) fn with(root: Root, prepare: impl FnOnce(&Path), options: &[&str]) -> Self {
        Self::begin(root, prepare, options, &[])
    }

    fn begin(root: Root, prepare: impl FnOnce(&Path), options: &[&str], agent_as: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("temp directory");
        let at = directory.path();
        fs::set_permissions(at, Permissions::from_mode(0o755)).expect("mode");
        for part in ["state", "toolbox", "project", "laptop", "root"] {
            fs::create_dir(at.join(part)).expect("made");
        }
        chown(at.join("project"), Some(UID), Some(UID)).expect("owner");
        fs::copy("/usr/bin/busybox", at.join("toolbox/busybox")).expect("busybox-static");
        fs::write(at.join("toolbox/applets"), run(Command::new("busybox").arg("--list"))).expect("written");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at.join("id")));
        fs::copy(at.join("id.pub"), at.join("keys")).expect("copied");
        // Where every user may execute it.
        fs::copy(built("devsync-agent"), at.join("devsync-agent")).expect("copied");
        if root == Root::Scratch {
            scratch_root(&at.join("root"));
        }
        prepare(at);
        let init = init(root, at, options, agent_as).spawn().expect("unshare");
        let mut rig = Self { directory, init, port: 0 };
        rig.wait_for_agent();
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the agent said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("the agent's log")
    }

    fn wait_for_agent(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let line = loop {
            let said = fs::read_to_string(self.path("known")).unwrap_or_default();
            if let Some(line) =
                said.lines().find(|line| !line.starts_with('#') && line.contains("ssh-ed25519 "))
            {
                break line.to_owned();
            }
            assert!(Instant::now() < deadline, "the agent did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        let port = line.split([':', ' ']).nth(1).and_then(|port| port.parse().ok());
        self.port = port.expect("a port");
        let at = self.directory.path().display();
        let config = format!(
            "Host pod\n HostName 127.0.0.1\n Port {}\n User dev\n IdentityFile {at}/id\n IdentitiesOnly yes\n \
             UserKnownHostsFile {at}/known\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n \
             BatchMode yes\n LogLevel ERROR\n",
            self.port
        );
        fs::write(self.path("config"), config).expect("written");
    }

    /// One of OpenSSH's programs with the configuration; the host is `pod`.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["250", name, "-F"]).arg(self.path("config"));
        command.current_dir(self.path("laptop")).stdin(Stdio::null());
        command
    }

    /// `ssh pod COMMAND`.
    pub(crate) fn ssh(&self, command: &str) -> Command {
        let mut ssh = self.tool("ssh");
        ssh.args(["pod", command]);
        ssh
    }

    /// Its standard output, where it ended with 0.
    pub(crate) fn says(&self, command: &str) -> String {
        run(&mut self.ssh(command))
    }

    /// A program in the agent's namespaces, as a process of its container or of the app's user.
    pub(crate) fn beside_agent(&self, setpriv: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--pid", "--mount", "--target", &self.agent().to_string(), "--", "setpriv"]);
        command.args(setpriv).args(words).stdin(Stdio::null());
        command
    }

    /// Makes a second key, and registers it as a client with the right to pods/exec does: the agent runs as `id`.
    pub(crate) fn register(&self, id: u32) -> PathBuf {
        let key = self.path("registered");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let public = fs::read_to_string(key.with_extension("pub")).expect("a key");
        let (id, agent, state) = (id.to_string(), self.path("devsync-agent"), self.path("state"));
        let (agent, state) = (agent.to_str().expect("a name"), state.to_str().expect("a name"));
        let words = [agent, "authorize", "--state", state, "--key", public.trim()];
        run(&mut self.beside_agent(&["--reuid", &id, "--regid", &id, "--clear-groups"], &words));
        key
    }

    /// `sftp -b`, each line of `batch` a command.
    pub(crate) fn sftp(&self, batch: &str) -> Output {
        fs::write(self.path("batch"), batch).expect("written");
        let mut sftp = self.tool("sftp");
        sftp.arg("-b").arg(self.path("batch")).arg("pod");
        output(&mut sftp)
    }

    /// The process id of the agent, as this test sees it.
    pub(crate) fn agent(&self) -> i32 {
        self.process("devsync-agent")
    }

    /// That of the app in [`Root::Debian`].
    pub(crate) fn app(&self) -> i32 {
        self.process("sleep")
    }

    fn process(&self, name: &str) -> i32 {
        let children = |pid: i32| -> Vec<i32> {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
            list.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
        };
        let first = children(i32::try_from(self.init.id()).expect("a pid"));
        let named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        first.into_iter().flat_map(children).find(named).expect("a process of that name")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent said: {}", self.log());
        }
        // The first process of the namespace takes the others with it.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn scratch_root(root: &Path) {
    for part in ["proc", "dev", "dev/pts", "srv", "srv/app", "etc", "tmp"] {
        fs::create_dir(root.join(part)).expect("made");
    }
    chown(root.join("srv/app"), Some(UID), Some(UID)).expect("owner");
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).expect("mode");
    let mut compile = Command::new("gcc");
    compile.args(["-static", "-x", "c", "-", "-o"]).arg(root.join("app"));
    let mut compile = compile.stdin(Stdio::piped()).spawn().expect("gcc");
    std::io::Write::write_all(&mut compile.stdin.take().expect("piped"), PROGRAM.as_bytes())
        .expect("written");
    assert!(compile.wait().expect("gcc").success());
}

/// The namespace's first process is a shell that reaps, as the pause container of a pod does.
fn init(root: Root, at: &Path, options: &[&str], agent_as: &[&str]) -> Command {
    let app = match root {
        Root::Debian => {
            r#"cd "$at/project"; exec env -i APP=yes HOME="$at/project" PATH=/usr/local/bin:/usr/bin:/bin setpriv \
               --reuid "$id" --regid "$id" --clear-groups --bounding-set=-all --inh-caps=-all sleep infinity"#
        }
        Root::Scratch => {
            r#"mount -t proc proc "$at/root/proc"
               mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$at/root/dev/pts"
               exec env -i APP=yes /usr/sbin/chroot --userspec="$id:$id" --groups= "$at/root" /app"#
        }
    };
    let script = format!(
        r#"at=$1 id=$2 agent=$3; export at id; shift 3
           unshare --mount sh -c '{app}' >/dev/null 2>>"$at/app.log" </dev/null &
           app=$!
           while [ "$(cat "/proc/$app/comm")" != "{}" ]; do sleep 0.02; done
           env DEVSYNC_TOOLBOX="$at/toolbox" $agent_as "$agent" serve --listen 127.0.0.1:0 --authorized-keys "$at/keys" \
               --state "$at/state" --target "pid/$app" "$@" >"$at/known" 2>"$at/log" </dev/null &
           wait $!; exit $?"#,
        if root == Root::Debian { "sleep" } else { "app" }
    );
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--pid", "--mount", "--mount-proc", "--fork"]);
    command.args(["--kill-child", "--", "sh", "-c", &script, "sh"]).arg(at).arg(UID.to_string());
    command.arg(at.join("devsync-agent"));
    command.args(options).env("agent_as", agent_as.join(" "));
    command
}

/// A program of the workspace, built beside this test.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test");
    let program = own.parent().and_then(Path::parent).expect("target/debug").join(name);
    assert!(program.exists(), "{} is missing (hint: cargo build --workspace --bins)", program.display());
    program
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Its standard output; fails unless it ends with 0.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{}", output.status, said(&output));
    out
}

/// Ends one of [`Rig::tool`]'s programs, as a laptop that goes away: `timeout` passes it on.
pub(crate) fn stop(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("signalled");
    child.wait().expect("reaped");
}

/// Its standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for an event.
#[track_caller]
pub(crate) fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
