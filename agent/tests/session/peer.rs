//! A client that speaks the protocol with `devsync-agent --stdio` and blocks, with a deadline on each answer.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use devsync_protocol::frame::{Decoder, Encoder};
use devsync_protocol::handshake::{self, HELLO_LEN};
use devsync_protocol::message::{
    AutoRestart, BatchId, Committed, Op, Place, Refusal, Reply, Request, RootOptions,
};
use devsync_protocol::path::PodPath;
use devsync_protocol::target::TargetReport;

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_devsync-agent");
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Peer {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<Reply>,
    pub(crate) report: Box<TargetReport>,
    pub(crate) auto: AutoRestart,
    pub(crate) batches: BatchId,
}

impl Peer {
    /// Starts an agent for process `pid`, with its records in `state`.
    pub(crate) fn start(pid: u32, state: &Path) -> Self {
        Self::named("ann", pid, state)
    }

    pub(crate) fn named(name: &str, pid: u32, state: &Path) -> Self {
        Self::command(Command::new(AGENT), name, pid, state)
    }

    /// `command`: the agent, or something that ends in starting it.
    pub(crate) fn command(mut command: Command, name: &str, pid: u32, state: &Path) -> Self {
        let target = format!("pid/{pid}");
        command.args(["--stdio", "--target", &target, "--peer", name, "--state"]).arg(state);
        Self::over(command)
    }

    /// Speaks with whatever `command` leads to.
    pub(crate) fn over(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the agent");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(&handshake::hello()).expect("the agent reads");
        let mut stdout = child.stdout.take().expect("stdout");
        let (sender, replies) = channel();
        std::thread::spawn(move || {
            let mut hello = [0; HELLO_LEN];
            stdout.read_exact(&mut hello).expect("a hello");
            handshake::check(&hello, "agent").expect("our version");
            let mut decoder = Decoder::new();
            let mut buffer = vec![0; 65536];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                decoder.feed(&buffer[..n]);
                while let Some(reply) = decoder.next().expect("a reply") {
                    if sender.send(reply).is_err() {
                        return;
                    }
                }
            }
        });
        let Ok(Reply::Welcome { target, auto, .. }) = replies.recv_timeout(PATIENCE) else {
            panic!("no welcome");
        };
        Self { child, stdin: Some(stdin), replies, report: target, auto, batches: 0 }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self, requests: &[Request]) {
        assert!(self.try_send(requests), "the agent reads");
    }

    /// False where the agent is gone.
    pub(crate) fn try_send(&mut self, requests: &[Request]) -> bool {
        let mut encoder = Encoder::new(None);
        let mut out = Vec::new();
        for request in requests {
            encoder.push(request, &mut out).expect("encodes");
        }
        encoder.flush(&mut out).expect("encodes");
        self.stdin.as_mut().expect("open").write_all(&out).is_ok()
    }

    /// The next reply; `None` once the agent has closed.
    pub(crate) fn next(&mut self) -> Option<Reply> {
        match self.replies.recv_timeout(PATIENCE) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the agent does not answer"),
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        self.send(&[request]);
        self.next().expect("an answer")
    }

    /// Opens a directory of the app as root 0.
    pub(crate) fn open(&mut self, path: &str) {
        self.open_with(path, RootOptions::default());
    }

    pub(crate) fn open_with(&mut self, path: &str, options: RootOptions) {
        let reply = self.try_open(path, options);
        assert!(matches!(reply, Reply::Opened { .. }), "{reply:?}");
    }

    pub(crate) fn try_open(&mut self, path: &str, options: RootOptions) -> Reply {
        let place = Place::At(PodPath::new(path).expect("a path"));
        self.ask(Request::Open { root: 0, place, options })
    }

    pub(crate) fn refused(&mut self, path: &str, options: RootOptions) -> Refusal {
        match self.try_open(path, options) {
            Reply::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends the operations as one batch in root 0.
    pub(crate) fn batch(&mut self, ops: Vec<Op>) -> Committed {
        let mut requests = vec![self.begin()];
        requests.extend(ops.into_iter().map(|op| Request::Op { root: 0, op }));
        requests.push(self.commit_request());
        self.send(&requests);
        self.committed()
    }

    pub(crate) fn begin(&mut self) -> Request {
        self.batches += 1;
        Request::Begin { batch: self.batches }
    }

    pub(crate) fn commit_request(&self) -> Request {
        Request::Commit { batch: self.batches }
    }

    pub(crate) fn committed(&mut self) -> Committed {
        match self.next() {
            Some(Reply::Committed(committed)) => *committed,
            other => panic!("not committed: {other:?}"),
        }
    }

    /// Waits until everything that was sent is done.
    pub(crate) fn settle(&mut self) {
        assert_eq!(self.ask(Request::Ping { nonce: 7 }), Reply::Pong { nonce: 7 });
    }

    /// The agent's end after a breach of the protocol: a last word, then nothing.
    pub(crate) fn last_word(mut self) -> Refusal {
        let Some(Reply::Refused(refusal)) = self.next() else { panic!("no last word") };
        assert!(refusal.fatal, "{refusal:?}");
        assert_eq!(self.next(), None);
        self.child.wait().expect("the agent ends");
        refusal
    }

    /// Closes this end and waits for the agent's.
    pub(crate) fn close(mut self) -> ExitStatus {
        self.stdin = None;
        self.child.wait().expect("the agent ends")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// The most memory that the agent ever had resident, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of temporary files below `dir`.
pub(crate) fn temps(dir: &Path) -> Vec<String> {
    let output = Command::new("find").arg(dir).args(["-name", ".devsync-*"]).output().expect("find");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
