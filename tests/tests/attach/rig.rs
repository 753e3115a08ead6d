//! A laptop's directory, a pod's directory and a home for devsync, all in one temporary directory.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devsync_tests::app::{App, Place, UID};
use devsync_tests::attach::{Attach, Devsync};
use tempfile::TempDir;

/// Longer than any command here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP service that answers one word and its process id, from the standard library alone.
const SERVICE: &str = r#"import http.server, os, socketserver
ANSWER = "one"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{ANSWER} {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
socketserver.TCPServer.allow_reuse_address = True
server = socketserver.TCPServer(("127.0.0.1", 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Fails unless it ended with `code`.
    pub(crate) fn code(self, code: i32) -> Result<Said> {
        ensure!(self.code == Some(code), "ended with {:?}, not {code}: {self:#?}", self.code);
        Ok(self)
    }

    /// Fails unless each of `words` stands in standard error.
    pub(crate) fn says(self, words: &[&str]) -> Result<Said> {
        for word in words {
            ensure!(self.err.contains(word), "no {word:?} in: {self:#?}");
        }
        Ok(self)
    }
}

pub(crate) struct Rig {
    pub(crate) laptop: PathBuf,
    pub(crate) pod: PathBuf,
    pub(crate) devsync: Devsync,
    dir: TempDir,
}

impl Rig {
    /// Both sides have the service, and the app can write its own directory.
    pub(crate) fn new() -> Result<Rig> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
        let (laptop, pod) = (dir.path().join("laptop"), dir.path().join("pod"));
        for side in [&laptop, &pod] {
            fs::create_dir(side)?;
            fs::write(side.join("app.py"), SERVICE)?;
        }
        chown(&pod, Some(UID), Some(UID))?;
        chown(pod.join("app.py"), Some(UID), Some(UID))?;
        let devsync = Devsync::new(programs()?, dir.path().join("home"))?;
        Ok(Rig { laptop, pod, devsync, dir })
    }

    /// Starts the service in the pod's directory.
    pub(crate) fn app(&self) -> Result<App> {
        self.start(&["/usr/bin/python3", "-B", "app.py"])
    }

    pub(crate) fn start(&self, argv: &[&str]) -> Result<App> {
        App::start(&Place::Directory(self.pod.clone()), argv, "ready")
    }

    /// The service's source with another answer.
    pub(crate) fn save(&self, answer: &str) -> Result<()> {
        Ok(fs::write(self.laptop.join("app.py"), source(answer))?)
    }

    /// `devsync attach` of the app; returns after the first sync.
    pub(crate) fn attach(&self, app: &App, more: &[&str]) -> Result<Attach> {
        let mut attach = self.attach_unsynced(app, more)?;
        attach.first_sync()?;
        Ok(attach)
    }

    pub(crate) fn attach_unsynced(&self, app: &App, more: &[&str]) -> Result<Attach> {
        let target = target(app);
        self.attach_by(&[&["attach", &target][..], more].concat())
    }

    /// `devsync WORD…`, which is some attach that goes on, with JSON events.
    pub(crate) fn attach_by(&self, words: &[&str]) -> Result<Attach> {
        let mut command = self.devsync.command(&self.laptop, &[words, &["-o", "json"]].concat());
        command.stderr(File::create(self.errors())?);
        Attach::start(command)
    }

    /// What the last attach wrote to standard error so far.
    pub(crate) fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(self.errors())?)
    }

    fn errors(&self) -> PathBuf {
        self.dir.path().join("stderr")
    }

    /// A name for something else that a test needs, removed with everything.
    pub(crate) fn other(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `devsync WORD…` to its end.
    pub(crate) fn run(&self, words: &[impl AsRef<OsStr>]) -> Result<Said> {
        run(self.devsync.command(&self.laptop, words))
    }

    /// The names in the pod's directory, sorted.
    pub(crate) fn in_pod(&self) -> Result<Vec<String>> {
        names(&self.pod)
    }
}

pub(crate) fn target(app: &App) -> String {
    format!("pid/{}", app.pid())
}

pub(crate) fn source(answer: &str) -> String {
    SERVICE.replace("\"one\"", &format!("{answer:?}"))
}

/// What the service answers now.
pub(crate) fn ask(app: &App) -> Result<String> {
    let mut client = app.client();
    let asked = thread::spawn(move || client.get("/")).join();
    asked.map_err(|_| anyhow::anyhow!("the client's thread panicked"))?.context("ask the service")
}

pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = fs::read_dir(dir)?.map(|entry| entry.map(name)).collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

/// Runs a command to its end; one that hangs is killed.
pub(crate) fn run(mut command: Command) -> Result<Said> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    let (done_tx, done) = channel();
    // Ends with the command.
    thread::spawn(move || done_tx.send(child.wait_with_output()));
    let Ok(output) = done.recv_timeout(PATIENCE) else {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        bail!("{command:?} does not end: {:?}", done.recv());
    };
    let output = output?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// The directory of the programs of this build: the one above this test's own.
pub(crate) fn programs() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let programs = test.ancestors().nth(2).context("a test lies in target/…/deps")?.to_owned();
    for name in ["devsync", "devsync-agent", "devsync-run"] {
        ensure!(programs.join(name).exists(), "no {name} here: cargo build --workspace --bins");
    }
    Ok(programs)
}
