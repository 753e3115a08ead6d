//! Starts devsync-run around a program, and leaves nothing of it behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use devsync_agent::restart::supervise::{self, Outcome, Supervisor};
use devsync_agent::sys::{process_tree, signals};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_devsync-run");
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until `probe` has something.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// The real interpreter: a version manager's `python3` may be a shell script that starts another one.
pub(crate) fn python() -> String {
    let out = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

pub(crate) struct Run {
    child: Child,
    pub(crate) dir: TempDir,
}

impl Run {
    /// Runs `devsync-run OPTIONS -- APP`, its stdout and stderr in files.
    pub(crate) fn start(options: &[&str], app: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        command.args(options).arg("--").args(app);
        Self::command(command)
    }

    /// Runs a shell script as the app; `$DIR` is the test's directory.
    pub(crate) fn shell(options: &[&str], script: &str) -> Self {
        Self::start(options, &["/bin/sh", "-c", script])
    }

    pub(crate) fn command(mut command: Command) -> Self {
        let dir = TempDir::new().unwrap();
        let file = |name| Stdio::from(File::create(dir.path().join(name)).unwrap());
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        Self::in_dir(command, dir)
    }

    /// As the command says, with `$DIR` set.
    pub(crate) fn in_dir(mut command: Command, dir: TempDir) -> Self {
        let child = command.env("DIR", dir.path()).spawn().unwrap();
        Self { child, dir }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until the file has a line that begins with `prefix`; what follows the prefix.
    pub(crate) fn line(&self, name: &str, prefix: &str) -> String {
        wait_for(&format!("{prefix:?} in {name}"), || {
            let text = self.read(name);
            let whole = &text[..text.rfind('\n')? + 1];
            whole.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
        })
    }

    pub(crate) fn supervisor(&self) -> Supervisor {
        self.supervisor_of(self.pid())
    }

    pub(crate) fn supervisor_of(&self, pid: i32) -> Supervisor {
        wait_for("the control socket", || supervise::find(pid).unwrap())
    }

    /// Waits until an app runs.
    pub(crate) fn app(&self) -> i32 {
        wait_for("an app", || self.supervisor().app().unwrap())
    }

    pub(crate) fn restart(&self) -> (Option<i32>, i32) {
        match self.supervisor().restart(deadline()).unwrap() {
            Outcome::Restarted { old, new, .. } => (old, new.expect("the new app is alive")),
            held => panic!("{held:?}"),
        }
    }

    pub(crate) fn signal(&self, number: i32) {
        signals::send(self.pid(), number).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the end of devsync-run", || self.child.try_wait().unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Stopped first, or it would start the app again while that is being ended.
        let _ = signals::send(self.pid(), libc::SIGSTOP);
        // One look may miss a child while others come and go. What is killed stays its zombie while it is stopped.
        let lives = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
        };
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let mut quiet = 0;
        while quiet < 3 && std::time::Instant::now() < until {
            let below: Vec<i32> = process_tree::descendants(self.pid()).into_iter().filter(lives).collect();
            for pid in &below {
                let _ = signals::send(*pid, libc::SIGKILL);
            }
            quiet = if below.is_empty() { quiet + 1 } else { 0 };
            std::thread::yield_now();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pids of all processes whose command line holds `marker`.
pub(crate) fn with_marker(marker: &Path) -> Vec<i32> {
    let marker = marker.to_str().unwrap().as_bytes();
    let has = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(marker.len()).any(|part| part == marker))
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(has).collect()
}

/// One field of /proc/PID/status.
pub(crate) fn status_field(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}
