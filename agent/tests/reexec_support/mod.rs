//! Real programs to restart, and what /proc says of them. Every process is ended and collected on drop.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use devsync_agent::restart::helper::Launcher;
use devsync_agent::restart::reexec::{Recorded, Restart, Style};

pub(crate) const GRACEFUL: Style = Style::Graceful { grace: Duration::from_secs(10) };
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_devsync-agent");

/// Compiles a program of tests/programs.
pub(crate) fn compile_program(name: &str, to: &Path, version: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name);
    let fresh = to.with_extension("new");
    let done = Command::new("rustc")
        .args(["--edition", "2024", "-C", "opt-level=0", "-C", "debuginfo=0", "-o"])
        .arg(&fresh)
        .arg(source)
        .env("VERSION", version)
        .output()
        .expect("runs rustc");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::rename(fresh, to).expect("puts it in place");
}

/// A launcher of the real helper, in front of which `wrapper` may stand.
pub(crate) fn launcher(wrapper: &[&str]) -> Launcher {
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.extend([AGENT, "helper", "reexec"].map(OsString::from));
    Launcher::new(PathBuf::from(words.remove(0)), words)
}

/// Compiles the test server with a version compiled in.
pub(crate) fn compile(to: &Path, version: &str) {
    compile_program("server.rs", to, version);
}

/// A compiled server that runs, and its port.
pub(crate) fn server(threads: usize) -> (tempfile::TempDir, App, u16) {
    let directory = tempfile::tempdir().expect("makes a directory");
    let exe = directory.path().join("server");
    compile(&exe, "old");
    let app = App::start(Command::new(&exe).args([&threads.to_string(), "0"]));
    let port = app.line("START old").split(' ').nth(1).expect("has a port").parse().expect("is a number");
    (directory, app, port)
}

/// A Python program.
pub(crate) fn python(code: &str, args: &[&str]) -> App {
    App::start(Command::new("python3").arg("-c").arg(code).args(args))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    socket.local_addr().expect("has an address").port().to_string()
}

/// A running program whose output is read line by line.
pub(crate) struct App {
    pub(crate) child: Child,
    pub(crate) pid: i32,
    lines: Receiver<String>,
}

impl App {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("starts the app");
        let lines = lines_of(child.stdout.take().expect("has an output"));
        Self { pid: child.id() as i32, child, lines }
    }

    /// The next line that begins so, without that beginning.
    pub(crate) fn line(&self, start: &str) -> String {
        self.line_within(start, DEADLINE).unwrap_or_else(|| panic!("no line {start:?} from {}", self.pid))
    }

    pub(crate) fn line_within(&self, start: &str, time: Duration) -> Option<String> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).ok()?;
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    /// Whether the parent, which is this test, still sees it run.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("can be asked").is_none()
    }

    pub(crate) fn restart(&self, style: Style) -> Restart {
        Restart {
            recorded: Recorded::of(self.pid).expect("records"),
            style,
            end_descendants: true,
            instance: None,
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

pub(crate) fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("is there");
    let rest = stat.rsplit_once(')').expect("has a name").1;
    rest.split_whitespace().nth(19).expect("has a start time").parse().expect("is a number")
}

/// `/proc/PID/status`, by field.
pub(crate) fn status(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("is there");
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

/// The state letter.
pub(crate) fn state(pid: i32) -> char {
    status(pid)["State"].chars().next().expect("has a letter")
}

/// Every descriptor with its flags.
pub(crate) fn descriptor_flags(pid: i32) -> BTreeMap<i32, String> {
    let mut flags = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("is there").map_while(Result::ok) {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let line = info.lines().find(|l| l.starts_with("flags:")).unwrap_or_default().to_owned();
        flags.insert(entry.file_name().to_string_lossy().parse().expect("is a number"), line);
    }
    flags
}

/// What a failed restart must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    signals: Vec<String>,
    descriptors: BTreeMap<i32, String>,
    cwd: PathBuf,
    threads: String,
}

pub(crate) fn picture(pid: i32) -> Picture {
    let status = status(pid);
    let fields = ["SigBlk", "SigIgn", "SigCgt", "Umask", "TracerPid"];
    Picture {
        signals: fields.iter().map(|field| status[*field].clone()).collect(),
        descriptors: descriptor_flags(pid),
        cwd: fs::read_link(format!("/proc/{pid}/cwd")).expect("has one"),
        threads: status["Threads"].clone(),
    }
}

/// What the server on this port answers: version, PID, descriptors.
pub(crate) fn ask(port: u16) -> Option<(String, i32, usize)> {
    let mut text = String::new();
    TcpStream::connect(("127.0.0.1", port)).ok()?.read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Asks until there is an answer.
pub(crate) fn ask_soon(port: u16) -> (String, i32, usize) {
    soon(|| ask(port)).unwrap_or_else(|| panic!("nobody answers on port {port}"))
}

/// Tries until there is something, with a deadline.
pub(crate) fn soon<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::yield_now();
    }
}

/// The children of a process that are dead and not collected.
pub(crate) fn zombies_of(pid: i32) -> usize {
    let processes = fs::read_dir("/proc").expect("is there").map_while(Result::ok);
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let mut words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            words.next() == Some("Z") && words.next() == Some(&pid.to_string())
        })
        .count()
}
