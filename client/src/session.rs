//! The client's end of a session: handshake, frames, requests out, replies routed to who waits for them.
//!
//! Requests are answered in order, so waiters stand in a queue. What nobody asked for (a restart's outcome, the
//! app's end) goes to the event channel. Knows nothing of files or trees.

mod pulse;
mod router;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use devsync_protocol::frame::{Decoder, FrameError};
use devsync_protocol::handshake::{self, HELLO_LEN, HandshakeError};
use devsync_protocol::message::{AutoRestart, Refusal, Reply, Request};
use devsync_protocol::target::TargetReport;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{CommandError, Kind};
use crate::transport::{Link, Transport};

pub use router::{Answers, Call, Event};
pub use writer::Outgoing;

use router::Router;
use writer::Writer;

/// How long the agent may take to say hello and find its target.
const WELCOME_WITHIN: Duration = Duration::from_secs(20);

/// Events that may wait while a save is committed.
const EVENTS: usize = 256;

#[derive(Debug, Clone, Error)]
pub enum SessionError {
    #[error("the agent ended the session")]
    Ended { said: Option<String> },
    #[error("the app is gone")]
    Gone { reason: String },
    #[error("the agent said nothing for {seconds} s")]
    Silent { seconds: u64 },
    #[error("the link to the agent failed")]
    Io(#[source] Arc<std::io::Error>),
    #[error("the agent sent what cannot be read")]
    Frame(#[source] Arc<FrameError>),
    #[error("client and agent do not understand each other")]
    Handshake(#[source] Arc<HandshakeError>),
    #[error("{}", .0.what)]
    Refused(Refusal),
    #[error("the agent reports more restarts and crashes than were asked for")]
    Flood,
    #[error("the agent answered {call} with more than a tree can hold")]
    TooMuch { call: &'static str },
    #[error("the agent answered {call} with something else ({reply})")]
    Unexpected { call: &'static str, reply: &'static str },
}

impl SessionError {
    /// True where the way to the agent is lost, so that another session may go on where this one ended.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Gone { .. } | Self::Silent { .. } | Self::Io(_))
    }
}

impl From<SessionError> for CommandError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused(Refusal { what, cause, hint, .. }) => {
                let error = CommandError::new(what).hint_opt(hint);
                if cause.is_empty() { error } else { error.cause(cause) }
            }
            SessionError::Handshake(cause) => handshake_failure(&cause),
            SessionError::Ended { said: Some(said) } => {
                CommandError::new("the agent ended the session").cause(format!("it said: {said}"))
            }
            SessionError::Ended { said: None } => CommandError::new("the agent ended the session")
                .hint("the pod or the agent's process is gone: `devsync attach` again once it is back"),
            SessionError::Gone { reason } => CommandError::new("the app is gone").cause(reason).hint(
                "start it again and attach to the new process; under devsync-run an app stays attached",
            ),
            SessionError::Silent { .. } => CommandError::of(error)
                .hint("is the network up? `devsync attach` again compares the trees anew"),
            other => CommandError::of(other),
        }
    }
}

fn handshake_failure(cause: &HandshakeError) -> CommandError {
    match cause {
        HandshakeError::Version { theirs, .. } => {
            let older = if *theirs < handshake::VERSION { "agent" } else { "client" };
            CommandError::new("client and agent are of different versions")
                .kind(Kind::Version)
                .cause(cause.to_string())
                .hint(format!("the {older} is the older one: install the same release for both"))
        }
        HandshakeError::NotDevsync(_) => CommandError::new("there is no devsync agent at the other end")
            .cause(cause.to_string())
            .hint("DEVSYNC_AGENT names the agent's executable"),
    }
}

/// A session; clone [`Handle`]s of it to send requests from several tasks.
pub struct Session {
    handle: Handle,
    link: Box<dyn Link>,
    reader: JoinHandle<()>,
    heartbeat: JoinHandle<()>,
}

/// What the agent said of itself and the app.
pub struct Welcome {
    pub agent: String,
    pub target: TargetReport,
    /// What restart mode `auto` means here.
    pub auto: AutoRestart,
}

/// Sends requests and waits for their answers.
#[derive(Clone)]
pub struct Handle {
    writer: Arc<Writer>,
    router: Arc<Router>,
    received: Arc<AtomicU64>,
}

impl Handle {
    /// The session's way out, until it is dropped: what is pushed stays together and in order.
    pub async fn outgoing(&self) -> Outgoing<'_> {
        Outgoing::new(&self.router, self.writer.lock().await)
    }

    /// Sends one request that is answered as `call`.
    pub async fn ask(&self, call: Call, request: &Request) -> Result<Answers, SessionError> {
        let mut outgoing = self.outgoing().await;
        let answers = outgoing.expect(call);
        outgoing.push(request).await?;
        outgoing.flush().await?;
        Ok(answers)
    }

    /// Sends one request that has one answer, and waits for it.
    pub async fn call(&self, call: Call, request: &Request) -> Result<Reply, SessionError> {
        self.ask(call, request).await?.one().await
    }

    /// Bytes written to the wire so far.
    pub fn sent(&self) -> u64 {
        self.writer.sent()
    }

    /// Bytes read from the wire so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Shakes hands and waits for the agent's welcome. An agent that ends first is asked for its last words.
    pub async fn open(
        transport: Transport,
    ) -> Result<(Session, Welcome, mpsc::Receiver<Event>), SessionError> {
        let Transport { mut reader, mut writer, level, link } = transport;
        let greeted = async {
            let mut decoder = Decoder::new();
            writer.write_all(&handshake::hello()).await.map_err(io_error)?;
            writer.flush().await.map_err(io_error)?;
            greet(&mut reader, &mut decoder).await.map(|welcome| (welcome, decoder))
        };
        let silent = SessionError::Silent { seconds: WELCOME_WITHIN.as_secs() };
        let (welcome, decoder) = match timeout(WELCOME_WITHIN, greeted).await.unwrap_or(Err(silent)) {
            Ok(greeted) => greeted,
            Err(error) => {
                drop((reader, writer));
                return Err(with_last_words(error, link.close().await));
            }
        };
        let (event_tx, events) = mpsc::channel(EVENTS);
        let handle = Handle {
            writer: Arc::new(Writer::new(writer, level)),
            router: Arc::new(Router::new(event_tx)),
            received: Arc::default(),
        };
        let reader = tokio::spawn(read(reader, decoder, handle.clone()));
        let heartbeat = tokio::spawn(pulse::watch(handle.clone()));
        Ok((Session { handle, link, reader, heartbeat }, welcome, events))
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the session in order; gives the agent's last words.
    pub async fn close(self) -> Option<String> {
        self.heartbeat.abort();
        self.handle.writer.shut().await;
        let said = self.link.close().await;
        self.reader.abort();
        let _ = self.reader.await;
        said
    }
}

fn io_error(error: std::io::Error) -> SessionError {
    match error.kind() {
        // What the other end's disappearance looks like depends on who notices first.
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::UnexpectedEof => {
            SessionError::Ended { said: None }
        }
        _ => SessionError::Io(Arc::new(error)),
    }
}

/// An agent that ended without a word in the protocol may have said why on its standard error.
pub fn with_last_words(error: SessionError, words: Option<String>) -> SessionError {
    match error {
        SessionError::Ended { said: None } => SessionError::Ended { said: words },
        other => other,
    }
}

async fn greet(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
) -> Result<Welcome, SessionError> {
    let mut hello = [0; HELLO_LEN];
    reader.read_exact(&mut hello).await.map_err(io_error)?;
    handshake::check(&hello, "agent").map_err(|e| SessionError::Handshake(Arc::new(e)))?;
    match next_reply(reader, decoder, &mut vec![0; 64 * 1024], &mut 0).await? {
        Reply::Welcome { agent, target, auto } => Ok(Welcome { agent, target: *target, auto }),
        Reply::Refused(refusal) => Err(SessionError::Refused(refusal)),
        other => Err(SessionError::Unexpected { call: "hello", reply: router::name(&other) }),
    }
}

async fn next_reply(
    reader: &mut (impl AsyncRead + Unpin),
    decoder: &mut Decoder,
    buffer: &mut [u8],
    received: &mut u64,
) -> Result<Reply, SessionError> {
    loop {
        if let Some(reply) = decoder.next().map_err(|e| SessionError::Frame(Arc::new(e)))? {
            return Ok(reply);
        }
        let len = reader.read(buffer).await.map_err(io_error)?;
        if len == 0 {
            return Err(SessionError::Ended { said: None });
        }
        *received += len as u64;
        decoder.feed(&buffer[..len]);
    }
}

/// Reads replies and hands them over until the stream ends.
async fn read(mut reader: Box<dyn AsyncRead + Send + Unpin>, mut decoder: Decoder, handle: Handle) {
    let mut buffer = vec![0; 256 * 1024];
    let error = loop {
        let mut received = 0;
        let next = next_reply(&mut reader, &mut decoder, &mut buffer, &mut received).await;
        handle.received.fetch_add(received, Ordering::Relaxed);
        let routed = match next {
            Ok(reply) => handle.router.route(reply).await,
            Err(error) => Err(error),
        };
        if let Err(error) = routed {
            break error;
        }
    };
    handle.router.end(error).await;
}

#[cfg(test)]
mod tests;
