//! One session with a client: requests are read and served in order on the calling thread, which does the file
//! work; restarts and the watch over the app's life have threads of their own, joined before the session ends.

mod holders;
mod open;
mod pulse;
mod requests;
mod restarts;
mod vigil;
mod wire;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use devsync_protocol::message::{Refusal, Reply};
use thiserror::Error;

use crate::state::StateDir;
use crate::target::find::Query;
use open::Opened;
use requests::Session;
use wire::{Inbox, Outbox};

pub(crate) use crate::sync::stage::chain;
pub use holders::{Cut, Holders};
pub use wire::WireError;

/// What a session needs to know beforehand.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Which process is the app.
    pub target: Query,
    /// The agent's own directory, for ledgers, marks and locks; made with mode 0700.
    pub state: PathBuf,
    /// Who the client is, for the one who comes second.
    pub peer: String,
    /// The sessions of this agent that hold a target.
    pub holders: Arc<Holders>,
    /// How this one is ended by another that takes over; none where that cannot be.
    pub cut: Option<Cut>,
    /// Whether the first try to hold a target ends the session that holds it; cleared by that try.
    pub take_over: Arc<AtomicBool>,
}

impl SessionConfig {
    /// One that no other session knows of.
    pub fn alone(target: Query, state: PathBuf, peer: String) -> Self {
        Self { target, state, peer, holders: Arc::default(), cut: None, take_over: Arc::default() }
    }
}

#[derive(Debug, Error)]
pub enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the agent cannot use its directory {path}")]
    State { path: String, source: std::io::Error },
    /// The client was told and can do nothing more.
    #[error("{0}")]
    Refused(String),
}

/// Serves one client until it closes its end. Everything that it began and did not commit is taken back.
pub fn serve<R: Read, W: Write + Send + 'static>(
    mut reader: R,
    mut writer: W,
    config: &SessionConfig,
) -> Result<(), SessionError> {
    wire::greet(&mut reader, &mut writer)?;
    let outbox = Outbox::new(Box::new(writer));
    let opened = match prepare(config) {
        Ok(opened) => opened,
        Err(refusal) => {
            let said = [refusal.what.as_str(), refusal.cause.as_str()];
            let cause = said.into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join(": ");
            outbox.send(&Reply::Refused(Refusal { fatal: true, ..refusal }))?;
            return Err(SessionError::Refused(cause));
        }
    };
    let (opened, state) = opened;
    outbox.send(&opened.welcome())?;
    if let Some(held) = opened.held() {
        outbox.send(&held)?;
    }
    let config = SessionConfig { state: state.path().to_owned(), ..config.clone() };
    let mut session = Session::new(opened, outbox.clone(), &config);
    let served = session.serve(&mut Inbox::new(reader));
    session.end();
    if let Err(error @ (SessionError::Refused(_) | SessionError::Wire(WireError::Frame(_)))) = &served {
        let (what, cause) = ("the session".to_owned(), chain(error));
        let hint = Some("use a client and an agent of one release".to_owned());
        // A client that closed already cannot be told.
        let _ = outbox.send(&Reply::Refused(Refusal { what, cause, hint, fatal: true }));
    }
    served
}

/// The agent's own directory, and the app.
fn prepare(config: &SessionConfig) -> Result<(Opened, StateDir), Refusal> {
    let state = StateDir::open(&config.state).map_err(|error| Refusal {
        what: "the agent's state directory".to_owned(),
        cause: chain(&error),
        hint: Some("give the agent a directory that it may write with --state DIR".to_owned()),
        fatal: true,
    })?;
    Ok((open::open(config)?, state))
}
