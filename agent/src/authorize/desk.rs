//! The serving end: accepts callers, each on a thread of its own with a deadline, and registers their keys.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use devsync_protocol::contract::Authorized;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use russh::keys::{HashAlg, PublicKey};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::SOCKET;
use super::message::{Answer, LONGEST, Question, Registration, decode, encode};
use super::proof::{ProofError, Proven, could_be_ours};
use crate::ssh::{Grant, Registered, readable_key};
use crate::state::StateDir;
use crate::sys::packets::{Listener, Packets};
use crate::target::find::Query;

/// Held by the agent that serves: a socket whose agent is dead can be told from one whose agent lives.
const LOCK: &str = "serve.lock";
/// From accept to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers at once.
const CALLERS: usize = 8;
/// Wait after a failed accept, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest name of a developer, in characters.
const WHO: usize = 128;

#[derive(Debug, Error)]
pub enum DeskError {
    #[error("another agent serves with the state in {} (hint: give each a directory of its own with --state)", path.display())]
    Served { path: PathBuf },
    #[error("cannot {what} in {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Where keys are registered; one for each state directory.
#[derive(Debug)]
pub struct Desk {
    listener: Listener,
    _lock: Flock<File>,
}

/// What callers are told, and where their keys go.
#[derive(Debug)]
pub struct Book {
    pub registered: Arc<Registered>,
    pub server: Authorized,
    /// Ends the agent.
    pub shutdown: CancellationToken,
}

impl Desk {
    /// Listens in `state`; a socket that a dead agent left is replaced.
    pub fn open(state: &StateDir) -> Result<Self, DeskError> {
        let error = |what| move |source| DeskError::Io { what, path: state.name().to_owned(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(state.path().join(LOCK)).map_err(error("make a lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => DeskError::Served { path: state.name().to_owned() },
            errno => error("take the lock")(errno.into()),
        })?;
        let listener = Listener::bind(state.as_fd(), SOCKET).map_err(error("listen"))?;
        Ok(Self { listener, _lock: lock })
    }

    /// Answers until the book's shutdown; returns when all callers are done with.
    pub async fn run(self, book: Arc<Book>) -> io::Result<()> {
        let shutdown = book.shutdown.clone();
        let listener = UnixListener::from_std(self.listener.into_socket())?;
        let places = Arc::new(Semaphore::new(CALLERS));
        let mut callers = JoinSet::new();
        loop {
            let packets = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = callers.join_next() => continue,
                packets = accept(&listener) => packets,
            };
            let Ok(packets) =
                packets.inspect_err(|error| tracing::warn!(%error, "a caller was not accepted"))
            else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Dropped, which closes it: one of ours asks again.
            if !could_be_ours(&packets) {
                tracing::warn!("a process outside of the agent's container wanted to register a key");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let book = Arc::clone(&book);
            callers.spawn_blocking(move || {
                if let Err(error) = book.serve(packets) {
                    let error = crate::session::chain(&error);
                    tracing::warn!(error, "a key was not registered");
                }
                drop(place);
            });
        }
        while callers.join_next().await.is_some() {}
        Ok(())
    }
}

async fn accept(listener: &UnixListener) -> io::Result<Packets> {
    let (stream, _) = listener.accept().await?;
    Packets::accepted(stream.into_std()?)
}

impl Book {
    fn serve(&self, packets: Packets) -> Result<(), ProofError> {
        let deadline = Instant::now() + PATIENCE;
        let caller = Proven::new(packets, deadline)?;
        let mut buffer = [0; LONGEST];
        let question = decode(caller.receive(&mut buffer, deadline)?).ok_or(ProofError::Strange)?;
        let answer = match question {
            Question::Register(registration) => match self.register(registration) {
                Ok(()) => Answer::Registered(self.server.to_string()),
                Err(refusal) => Answer::Refused(refusal),
            },
            Question::Stop => Answer::Stopping,
        };
        let told = caller.send(&encode(&answer).ok_or(ProofError::Strange)?, deadline);
        if matches!(answer, Answer::Stopping) {
            tracing::info!("told to end");
            self.shutdown.cancel();
        }
        told
    }

    fn register(&self, question: Registration) -> Result<(), String> {
        let key = readable_key(&question.key).map_err(|error| error.to_string())?;
        let target: Option<Query> = question
            .target
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error: crate::target::find::FindError| error.to_string())?;
        let who: String = question.who.trim().chars().filter(|c| !c.is_control()).take(WHO).collect();
        let who = if who.is_empty() { "another client".to_owned() } else { who };
        let (fingerprint, since) = (fingerprint(&key), SystemTime::now());
        tracing::info!(who, key = fingerprint, target = question.target, "key registered");
        let grant = Grant { target, who, since, take_over: Arc::new(question.take_over.into()) };
        self.registered.add(key, grant, Instant::now());
        Ok(())
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
