//! A program in namespaces of its own, started with util-linux and coreutils alone, and asked over HTTP.
//! Dropping it ends it; if this process dies in any other way the kernel ends it (parent-death signal and
//! process namespace).

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Nobody in particular: the user that a usual distroless image runs as.
pub const UID: u32 = 65532;
/// Where the demo's programs listen, in their own network namespace.
const PORT: u16 = 8080;

/// How a program is confined.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a root of its own: a path of the program inside it. The directory is its whole world.
    Root(PathBuf),
    /// In the machine's files, started from this directory.
    Directory(PathBuf),
}

/// A running program.
#[derive(Debug)]
pub struct App {
    init: Child,
    pid: i32,
    network: Arc<File>,
    /// What the program says, line by line, to the last.
    pub output: Receiver<String>,
}

impl App {
    /// Starts `argv` as uid and gid [`UID`] without capabilities, in mount, process and network namespaces of its
    /// own, and waits until it has said a line that contains `started`.
    pub fn start(place: &Place, argv: &[&str], started: &str) -> Result<App> {
        let mut init = init(place, argv).spawn().context("start unshare (util-linux)")?;
        let output = lines(&mut init)?;
        let mut app = App { pid: 0, network: Arc::new(File::open("/dev/null")?), init, output };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = app.output.recv_timeout(left).with_context(|| format!("{argv:?} did not start"))?;
            eprintln!("app: {line}");
            if line.contains(started) {
                break;
            }
        }
        let first = only_child(i32::try_from(app.init.id())?)?;
        app.pid = only_child(first)?;
        app.network = Arc::new(File::open(format!("/proc/{}/ns/net", app.pid))?);
        Ok(app)
    }

    /// Its process id on this machine.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether that process is still there.
    pub fn alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }

    /// Waits until it has ended, and gives its exit code: 128 + N after signal N.
    pub fn end(mut self) -> Result<Option<i32>> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => eprintln!("app: {line}"),
                Err(RecvTimeoutError::Disconnected) => return Ok(self.init.wait()?.code()),
                Err(RecvTimeoutError::Timeout) => bail!("process {} does not end", self.pid),
            }
        }
    }

    /// A client for it, for use on one thread, which from then on sees only the program's network.
    pub fn client(&self) -> HttpClient {
        HttpClient { network: self.network.clone(), entered: false }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // The first process of the namespace takes the others with it; waiting for it waits for all.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn init(place: &Place, argv: &[&str]) -> Command {
    let id = UID.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--pid", "--mount", "--fork"]);
    command.args(["--kill-child", "--", "sh", "-c"]);
    match place {
        Place::Root(root) => {
            command.arg(
                r#"ip link set lo up; root=$1 id=$2; shift 2
                chroot --userspec="$id:$id" --groups= "$root" "$@"; exit $?"#,
            );
            command.arg("sh").arg(root).arg(id).args(argv);
        }
        Place::Directory(directory) => {
            command.arg(r#"ip link set lo up; cd "$1" && id=$2; shift 2
                setpriv --reuid "$id" --regid "$id" --clear-groups --bounding-set=-all --inh-caps=-all "$@"; exit $?"#);
            command.arg("sh").arg(directory).arg(id).args(argv);
        }
    }
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let (line_tx, line_rx) = channel();
    let stdout = child.stdout.take().context("stdout is piped")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let pipes: [Box<dyn Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
    for pipe in pipes {
        let line_tx = line_tx.clone();
        // Ends with the pipe, that is with the program.
        thread::spawn(move || {
            BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| line_tx.send(line).ok())
        });
    }
    Ok(line_rx)
}

fn only_child(pid: i32) -> Result<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let first = list.split_whitespace().next().with_context(|| format!("process {pid} has no child"))?;
    Ok(first.parse()?)
}

/// Asks a program in another network namespace.
#[derive(Debug)]
pub struct HttpClient {
    network: Arc<File>,
    entered: bool,
}

impl HttpClient {
    /// The body of the answer to `GET path`, whatever its status.
    pub fn get(&mut self, path: &str) -> io::Result<String> {
        if !self.entered {
            setns(&*self.network, CloneFlags::CLONE_NEWNET)?;
            self.entered = true;
        }
        let limit = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), limit)?;
        stream.set_read_timeout(Some(limit))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: adder\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_string());
        body.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Asks until the answer is `wanted`, and gives the time at which it was. Between two questions it calls
    /// `between`, which may wait for something that makes a new question worth while.
    pub fn wait_for(
        &mut self,
        path: &str,
        wanted: &str,
        deadline: Instant,
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<Instant> {
        loop {
            let answer = self.get(path);
            let now = Instant::now();
            match answer {
                Ok(text) if text == wanted => return Ok(now),
                _ if now < deadline => between()?,
                Ok(text) => bail!("GET {path} still answers {text:?} instead of {wanted:?}"),
                Err(error) => bail!("GET {path}: {error}"),
            }
        }
    }
}
