//! One session with a client: requests are read and served in order on the calling thread, which does the file
//! work; restarts and the watch over the app's life have threads of their own, joined before the session ends.

mod open;
mod pulse;
mod requests;
mod restarts;
mod vigil;
mod wire;

use std::io::{Read, Write};
use std::path::PathBuf;

use devsync_protocol::message::{Refusal, Reply};
use thiserror::Error;

use crate::target::find::Query;
use requests::Session;
use wire::{Inbox, Outbox};

pub(crate) use crate::sync::stage::chain;
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
    let opened = match open::open(config) {
        Ok(opened) => opened,
        Err(refusal) => {
            let said = [refusal.what.as_str(), refusal.cause.as_str()];
            let cause = said.into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join(": ");
            outbox.send(&Reply::Refused(Refusal { fatal: true, ..refusal }))?;
            return Err(SessionError::Refused(cause));
        }
    };
    outbox.send(&opened.welcome())?;
    let mut session = Session::new(opened, outbox.clone(), config);
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
