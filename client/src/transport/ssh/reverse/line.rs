//! The connection that reversed ports travel on: one of its own beside the session's, so that something here that does
//! not read holds up no file. It is made again when it is lost, as long as the session lasts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use russh::client::Handle;
use russh::{Disconnect, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{FAREWELL, Login, PinnedKey, SshError, Verifier, identity::Identity};
use super::{Doors, Reverse, ReverseSpec, Unheard};

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The loopback, for the agent.
const LOOPBACK: &str = "localhost";

/// Tells this connection from the session's own.
const PART: &str = "-reverse";

/// A stream to an SSH server.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Opens another stream to the same server.
pub type Dial = Box<dyn Fn() -> Dialled + Send + Sync>;

/// Reversed ports that are listened on in the pod, until this is dropped or closed.
pub struct Line {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Line {
    /// Connects, and has the agent listen on each port; a port that it cannot have is an error.
    pub(in super::super) async fn open(
        dial: Dial,
        login: &Login<'_>,
        identity: Identity,
        reverse: Reverse,
    ) -> Result<Self, SshError> {
        let stop = CancellationToken::new();
        let doors = Doors::new(reverse, stop.clone());
        let way = Way {
            dial,
            identity,
            doors,
            user: login.user.to_owned(),
            host_key: login.host_key.clone(),
            name: login.addr.to_owned(),
            session: login.session.to_owned(),
        };
        let first = way.listen().await?;
        let task = tokio::spawn(way.keep(first, stop.clone()));
        Ok(Self { stop, task })
    }

    /// Ends it in order, within about a second.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        let _ = timeout(2 * FAREWELL, &mut self.task).await;
    }
}

struct Way {
    dial: Dial,
    user: String,
    identity: Identity,
    host_key: PinnedKey,
    /// What errors call the server.
    name: String,
    session: String,
    doors: Doors,
}

impl Way {
    async fn listen(&self) -> Result<Handle<Verifier>, SshError> {
        let Self { name, user, host_key, session, .. } = self;
        let login = Login { addr: name, user, host_key, session };
        login
            .in_time(async {
                let dialled = (self.dial)().await;
                let stream =
                    dialled.map_err(|source| SshError::Connect { addr: self.name.clone(), source })?;
                let handle = login.connected(stream, self.identity.clone(), Some(self.doors.clone())).await?;
                // The ports of a connection that died without a word are free after this.
                let channel = handle.channel_open_session().await;
                let mut channel = channel.map_err(|error| login.protocol(error))?;
                login.take_seat(&mut channel, PART).await?;
                let _ = channel.close().await;
                for spec in self.doors.specs() {
                    self.ask(&login, &handle, spec).await?;
                }
                Ok(handle)
            })
            .await
    }

    async fn ask(
        &self,
        login: &Login<'_>,
        handle: &Handle<Verifier>,
        spec: &ReverseSpec,
    ) -> Result<(), SshError> {
        let port = u32::from(spec.remote);
        match handle.tcpip_forward(LOOPBACK, port).await {
            Ok(_) => Ok(()),
            Err(Error::RequestDenied) => {
                // SSH's refusal has no words.
                let tried = handle.channel_open_direct_tcpip(LOOPBACK, port, LOOPBACK, 0).await;
                let source = if tried.is_ok() { Unheard::Taken } else { Unheard::Refused };
                Err(SshError::Reverse { addr: self.name.clone(), spec: spec.clone(), source })
            }
            Err(error) => Err(login.protocol(error)),
        }
    }

    /// Until it is told to stop.
    async fn keep(self, mut handle: Handle<Verifier>, stop: CancellationToken) {
        loop {
            tokio::select! {
                _ = &mut handle => {}
                () = stop.cancelled() => break,
            }
            handle = tokio::select! {
                again = self.again() => again,
                () = stop.cancelled() => return,
            };
        }
        let _ = timeout(FAREWELL, handle.disconnect(Disconnect::ByApplication, "", "en")).await;
        self.doors.tasks.close();
        self.doors.tasks.wait().await;
    }

    /// Another connection, as soon as there can be one. A cause is said once.
    async fn again(&self) -> Handle<Verifier> {
        let (mut pause, mut said) = (FIRST_PAUSE, None);
        loop {
            tokio::time::sleep(pause).await;
            match self.listen().await {
                Ok(handle) => return handle,
                Err(error) => {
                    let cause = crate::error::CommandError::of(error).line();
                    if said.as_ref() != Some(&cause) {
                        (self.doors.say)(&format!("--reverse is interrupted: {cause}"));
                        said = Some(cause);
                    }
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
