//! Restarts an app that runs under devsync-run, by asking that. Must not signal anything itself.

mod program;

pub use program::{Program, program};

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use devsync_protocol::contract::RUN_SOCKET_PREFIX;

use crate::supervisor::wire::{self, Held, MAX_REPLY, Refusal, Reply, Request, State, Status, WireError};
use crate::sys::{abstract_socket, process_tree};

/// How many sockets with a supervisor's name are looked at; anybody in the pod can make them.
const MAX_NAMES: usize = 1024;
/// How long a supervisor may take to answer that it is there.
const ANSWER: Duration = Duration::from_secs(2);
/// Each wait for bytes ends at least this late, so that a deadline in the past is an error of time and not of the call.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A devsync-run that is an ancestor of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supervisor {
    name: Vec<u8>,
    pid: i32,
}

/// What became of a restart. Pids are of this process's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `micros` from the request until exec(2) succeeded. A pid is `None` when there was no such process, it is not visible from
    /// here, or it ended already.
    Restarted { old: Option<i32>, new: Option<i32>, micros: u64 },
    /// Nothing runs now: the new program could not be started, or crashed while it should settle.
    Held { old: Option<i32>, held: Held },
}

#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    #[error("the control sockets of this network namespace cannot be listed")]
    List(#[source] io::Error),
    #[error("devsync-run (pid {pid}) cannot be reached")]
    Connect { pid: i32, source: io::Error },
    #[error("devsync-run (pid {pid}) is gone: its socket belongs to pid {found} now")]
    Replaced { pid: i32, found: i32 },
    #[error("talking with devsync-run (pid {pid}) failed")]
    Talk { pid: i32, source: io::Error },
    #[error("devsync-run (pid {pid}) gave no answer in time")]
    Late { pid: i32 },
    #[error("devsync-run (pid {pid}) answered what cannot be understood")]
    Wire { pid: i32, source: WireError },
    #[error("devsync-run (pid {pid}) answered something else than what was asked")]
    Unexpected { pid: i32 },
    #[error("devsync-run (pid {pid}) refused: {}", describe(*refusal))]
    Refused { pid: i32, refusal: Refusal },
}

fn describe(refusal: Refusal) -> String {
    match refusal {
        Refusal::Uid => {
            "the agent is neither root nor of its uid; run the agent with the app's runAsUser".to_owned()
        }
        Refusal::Version(version) => {
            let own = wire::VERSION;
            format!(
                "it speaks version {version} of the control protocol and the agent {own}; use both from one release"
            )
        }
        Refusal::Malformed => "the request was malformed".to_owned(),
        Refusal::Ending => "it is ending, as its pod is".to_owned(),
    }
}

/// Finds the devsync-run that `target` runs under: its nearest ancestor that listens on a control socket, by the kernel's
/// credentials, and answers. The name proves nothing, since any process in the pod may take it.
pub fn find(target: i32) -> Result<Option<Supervisor>, SuperviseError> {
    let chain: Vec<i32> = std::iter::once(target).chain(process_tree::ancestors(target)).collect();
    let names = abstract_socket::listening(RUN_SOCKET_PREFIX, MAX_NAMES).map_err(SuperviseError::List)?;
    let nearest = names.into_iter().filter_map(|name| {
        // A name that is gone, or whose owner accepts nobody, is not the one.
        let stream = abstract_socket::connect(&name).ok()?;
        let pid = abstract_socket::peer(&stream).ok()?.pid;
        let distance = chain.iter().position(|ancestor| *ancestor == pid)?;
        Some((distance, Supervisor { name, pid }))
    });
    let Some((_, supervisor)) = nearest.min_by_key(|(distance, _)| *distance) else { return Ok(None) };
    supervisor.status()?;
    Ok(Some(supervisor))
}

impl Supervisor {
    /// The supervisor's own pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it is doing. The pid in it is of the supervisor's namespace: see [`Supervisor::app`].
    pub fn status(&self) -> Result<Status, SuperviseError> {
        match self.connect()?.ask(&Request::Status, Instant::now() + ANSWER)? {
            Reply::Status(status) => Ok(status),
            _ => Err(SuperviseError::Unexpected { pid: self.pid }),
        }
    }

    /// Pid of the app's first process as this namespace numbers it, while it runs.
    pub fn app(&self) -> Result<Option<i32>, SuperviseError> {
        Ok(self.visible(&self.status()?))
    }

    /// The last output of the present run, or of the one that is held; at most 64 KiB.
    pub fn output(&self) -> Result<Vec<u8>, SuperviseError> {
        match self.connect()?.ask(&Request::Output, Instant::now() + ANSWER)? {
            Reply::Output(bytes) => Ok(bytes),
            _ => Err(SuperviseError::Unexpected { pid: self.pid }),
        }
    }

    /// Restarts the app, or starts it if it is held, and answers as soon as the new program runs.
    ///
    /// The supervisor's own grace time counts against `deadline`; a restart goes on after it.
    pub fn restart(&self, deadline: Instant) -> Result<Outcome, SuperviseError> {
        self.restart_and_settle(Duration::ZERO, deadline)
    }

    /// As [`Supervisor::restart`], and a crash within `settle` is `Held` too. `micros` does not hold the settle time.
    pub fn restart_and_settle(&self, settle: Duration, deadline: Instant) -> Result<Outcome, SuperviseError> {
        let mut connection = self.connect()?;
        let old = match connection.ask(&Request::Status, deadline)? {
            Reply::Status(status) => self.visible(&status),
            _ => return Err(SuperviseError::Unexpected { pid: self.pid }),
        };
        let settle_ms = settle.as_millis().try_into().unwrap_or(u32::MAX);
        match connection.ask(&Request::Restart { settle_ms }, deadline)? {
            Reply::Restarted { new, micros, .. } => {
                Ok(Outcome::Restarted { old, new: process_tree::translate(self.pid, new), micros })
            }
            Reply::Held { held, .. } => Ok(Outcome::Held { old, held }),
            _ => Err(SuperviseError::Unexpected { pid: self.pid }),
        }
    }

    fn visible(&self, status: &Status) -> Option<i32> {
        match status.state {
            State::Running { pid, .. } | State::Stopping { pid: Some(pid) } => {
                process_tree::translate(self.pid, pid)
            }
            _ => None,
        }
    }

    /// Connects, and makes sure again who is there: the name may have a new owner.
    fn connect(&self) -> Result<Connection, SuperviseError> {
        let failed = |source| SuperviseError::Connect { pid: self.pid, source };
        let stream = abstract_socket::connect(&self.name).map_err(failed)?;
        let found = abstract_socket::peer(&stream).map_err(failed)?.pid;
        if found != self.pid {
            return Err(SuperviseError::Replaced { pid: self.pid, found });
        }
        Ok(Connection { stream, pid: self.pid })
    }
}

struct Connection {
    stream: UnixStream,
    pid: i32,
}

impl Connection {
    fn ask(&mut self, request: &Request, deadline: Instant) -> Result<Reply, SuperviseError> {
        let pid = self.pid;
        let mut frame = Vec::new();
        wire::encode(request, &mut frame).map_err(|source| SuperviseError::Wire { pid, source })?;
        let sent =
            self.stream.set_write_timeout(Some(left(deadline))).and_then(|()| self.stream.write_all(&frame));
        // A refusal may have been sent, and the connection closed, before anything was asked: then that is the answer.
        let reply = self.receive(deadline);
        match (reply, sent) {
            (Ok(Reply::Refused(refusal)), _) => Err(SuperviseError::Refused { pid, refusal }),
            (Err(_), Err(source)) => Err(self.failed(source)),
            (reply, _) => reply,
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Reply, SuperviseError> {
        let pid = self.pid;
        let mut bytes = Vec::new();
        loop {
            match wire::decode(&bytes, MAX_REPLY) {
                Ok(Some((reply, _))) => return Ok(reply),
                Ok(None) => {}
                Err(source) => return Err(SuperviseError::Wire { pid, source }),
            }
            if Instant::now() >= deadline {
                return Err(SuperviseError::Late { pid });
            }
            let mut buffer = [0; 8192];
            let got = self
                .stream
                .set_read_timeout(Some(left(deadline)))
                .and_then(|()| self.stream.read(&mut buffer));
            match got {
                Ok(0) => return Err(self.failed(io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(n) => bytes.extend(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> SuperviseError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SuperviseError::Late { pid: self.pid },
            _ => SuperviseError::Talk { pid: self.pid, source },
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT)
}
