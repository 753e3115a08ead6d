//! The asking end: waits for the agent to serve, proves itself, and asks.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use devsync_protocol::contract::{Authorized, STATE_DIR};
use thiserror::Error;

use super::SOCKET;
use super::message::{Answer, LONGEST, Question, Registration, decode, encode};
use super::proof::{ProofError, Proven};
use crate::state::{StateDir, StateError};
use crate::sys::packets::Packets;
use crate::target::find::Query;

/// A container's agent may have been started a moment ago.
const PATIENCE: Duration = Duration::from_secs(10);
/// One that is to end is there already.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
pub struct AskArgs {
    /// The public key that may log in, as OpenSSH writes it: 'ssh-ed25519 AAAA…'.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// The app that this key's sessions reach: container/ID, pid/N or mnt/INODE; the server's own without it.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<Query>,
    /// Who the developer is; told to the next one who comes.
    #[arg(long, value_name = "TEXT", default_value = "another client")]
    pub who: String,
    /// End the session that holds the same target when this key's session wants it.
    #[arg(long)]
    pub take_over: bool,
    /// The directory that the serving agent was given.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The directory that the serving agent was given.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state: PathBuf,
}

#[derive(Debug, Error)]
pub enum AskError {
    #[error(
        "no agent serves with its state in {} (hint: look at the log of the agent's container)",
        state.display()
    )]
    NoServer { state: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("what answers in {} is not this container's agent", state.display())]
    Impostor { state: PathBuf, source: ProofError },
    #[error("the agent refuses the key: {0}")]
    Refused(String),
    #[error("the key or the name is too long")]
    TooLong,
    #[error("the agent's answer cannot be read (hint: it is of another release, start the container anew)")]
    Answer,
}

/// Registers the key with the agent that serves here; blocking, for little more than 10 s.
pub fn ask(args: AskArgs) -> Result<Authorized, AskError> {
    let target = args.target.map(|target| target.to_string());
    let registration = Registration { key: args.key, target, who: args.who, take_over: args.take_over };
    match say(&args.state, &Question::Register(registration), PATIENCE)? {
        Answer::Registered(text) => text.parse().map_err(|_| AskError::Answer),
        Answer::Refused(refusal) => Err(AskError::Refused(refusal)),
        Answer::Stopping => Err(AskError::Answer),
    }
}

/// Has the agent that serves here end in order; blocking, for some seconds at most.
pub fn stop(args: &StopArgs) -> Result<(), AskError> {
    match say(&args.state, &Question::Stop, STOP_PATIENCE)? {
        Answer::Stopping => Ok(()),
        Answer::Registered(_) | Answer::Refused(_) => Err(AskError::Answer),
    }
}

fn say(state: &Path, question: &Question, patience: Duration) -> Result<Answer, AskError> {
    let question = encode(question).ok_or(AskError::TooLong)?;
    let deadline = Instant::now() + patience;
    loop {
        let failed = match attempt(state, &question, deadline) {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if !failed.may_pass() || Instant::now() >= deadline {
            return Err(failed.told(state.to_owned()));
        }
        std::thread::sleep(PAUSE);
    }
}

enum Failed {
    State(StateError),
    Connect(io::Error),
    Proof(ProofError),
    Answer,
}

fn attempt(state: &Path, question: &[u8], deadline: Instant) -> Result<Answer, Failed> {
    let dir = StateDir::existing(state).map_err(Failed::State)?;
    let packets = Packets::connect(dir.as_fd(), SOCKET).map_err(Failed::Connect)?;
    let server = Proven::new(packets, deadline).map_err(Failed::Proof)?;
    let mut buffer = [0; LONGEST];
    let answer = server.send(question, deadline).and_then(|()| server.receive(&mut buffer, deadline));
    decode(answer.map_err(Failed::Proof)?).ok_or(Failed::Answer)
}

impl Failed {
    /// Whether it may be otherwise in a moment: no server yet, or one that is busy or just ends.
    fn may_pass(&self) -> bool {
        match self {
            Self::State(error) => matches!(error, StateError::Io { source, .. } if is_missing(source)),
            Self::Connect(error) => is_missing(error) || error.kind() == io::ErrorKind::WouldBlock,
            Self::Proof(error) => matches!(error, ProofError::Io(_) | ProofError::Ended { .. }),
            Self::Answer => false,
        }
    }

    fn told(self, state: PathBuf) -> AskError {
        match self {
            Self::State(source) => AskError::NoServer { state, source: source.into() },
            Self::Connect(source) => AskError::NoServer { state, source: source.into() },
            Self::Proof(source @ (ProofError::Io(_) | ProofError::Ended { .. })) => {
                AskError::NoServer { state, source: source.into() }
            }
            Self::Proof(source) => AskError::Impostor { state, source },
            Self::Answer => AskError::Answer,
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset)
}
