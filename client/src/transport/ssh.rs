//! An agent reached over SSH: its host key is pinned, the person's key logs in, the subsystem `devsync` carries the
//! stream. Nothing is trusted on first use, and nothing is sent before the host key was compared.

mod algorithms;
mod host_key;
mod identity;
mod program;
pub mod reverse;
mod seat;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use devsync_protocol::contract::{SESSION_VARIABLE, SUBSYSTEM};
use russh::client::{self, AuthResult, ChannelOpenHandle, Handle, Msg};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelStream, Disconnect};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use host_key::{HostKeyError, PinnedKey};
pub use identity::IdentityError;
pub use program::{ProgramChannel, ProgramKey};
pub use reverse::{Reverse, ReverseSpec};
pub use seat::Seat;

use super::{Link, Transport};
use identity::Identity;
use reverse::{Dial, Doors, Line, Unheard};

/// From the first packet to a running subsystem; a passphrase that is asked for does not count.
const SETUP: Duration = Duration::from_secs(20);
/// For saying good-bye.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where an agent serves, and with which keys.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// `HOST:PORT`.
    pub addr: String,
    /// Any name does: the key decides.
    pub user: String,
    pub identity: PathBuf,
    pub host_key: PinnedKey,
    /// What this session is called there; empty for none.
    pub session: String,
    /// Ports there that lead here.
    pub reverse: Reverse,
}

#[derive(Debug, Error)]
pub enum SshError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot connect to {addr}")]
    Connect { addr: String, source: io::Error },
    #[error("{addr} has host key {found}, not the pinned {pinned}")]
    HostKey { addr: String, found: String, pinned: String },
    #[error("{addr} does not accept the key {} ({fingerprint})", identity.display())]
    Refused { addr: String, identity: PathBuf, fingerprint: String },
    #[error("{addr} does not accept this session's key ({fingerprint})")]
    SessionKey { addr: String, fingerprint: String },
    #[error("ssh-agent does not sign with {}", identity.display())]
    Agent { identity: PathBuf },
    #[error("{addr} does not offer the subsystem devsync")]
    Subsystem { addr: String },
    #[error("{addr} did not answer within {} s", SETUP.as_secs())]
    Silent { addr: String },
    #[error("port {} of {addr} cannot lead to {spec} here", spec.remote)]
    Reverse { addr: String, spec: ReverseSpec, source: Unheard },
    #[error("the SSH connection to {addr} failed")]
    Protocol { addr: String, source: russh::Error },
}

impl SshError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Identity(error) => error.hint(),
            Self::Connect { .. } => "does `devsync-agent serve` run there, and is the port forwarded?".to_owned(),
            Self::HostKey { .. } => {
                "compare with the line that the agent printed at its start; a restarted agent without --state has a \
                 new key; if neither explains it, somebody may be listening in"
                    .to_owned()
            }
            Self::Refused { identity, .. } => format!(
                "append {}.pub to the agent's authorized keys; its log says why it refused",
                identity.display()
            ),
            Self::Agent { identity } => format!("ssh-add {}", identity.display()),
            Self::Subsystem { .. } => "is it a devsync agent, or another SSH server?".to_owned(),
            Self::SessionKey { .. } => "the agent forgot it, so it was restarted: try again".to_owned(),
            Self::Reverse { spec, .. } => {
                let other = spec.remote.checked_add(10_000).unwrap_or_else(|| spec.remote - 10_000);
                format!("take another port in the pod, and tell the app: --reverse {spec}:{other}")
            }
            Self::Silent { .. } | Self::Protocol { .. } => return None,
        })
    }
}

/// Connects, checks the host key, logs in and starts the subsystem.
pub async fn connect(target: &SshTarget) -> Result<Transport, SshError> {
    let identity = identity::load(&target.identity).await?;
    let login = Login {
        addr: &target.addr,
        user: &target.user,
        host_key: &target.host_key,
        session: &target.session,
    };
    let setup = async {
        let socket = socket(&target.addr).await;
        let socket = socket.map_err(|source| SshError::Connect { addr: target.addr.clone(), source })?;
        login.set_up(socket, identity.clone()).await
    };
    let transport = login.in_time(setup).await?;
    let addr = target.addr.clone();
    let dial: Dial = Box::new(move || {
        let addr = addr.clone();
        Box::pin(async move { Ok(Box::new(socket(&addr).await?) as _) })
    });
    with_reverse(transport, dial, &login, identity, target.reverse.clone()).await
}

async fn socket(addr: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Opens the line of reversed ports, where some are asked for, to last as long as the transport.
async fn with_reverse(
    transport: Transport,
    dial: Dial,
    login: &Login<'_>,
    identity: Identity,
    reverse: Reverse,
) -> Result<Transport, SshError> {
    if reverse.specs.is_empty() {
        return Ok(transport);
    }
    match Line::open(dial, login, identity, reverse).await {
        Ok(line) => Ok(Transport { link: Box::new(WithLine { ssh: transport.link, line }), ..transport }),
        Err(error) => {
            transport.close().await;
            Err(error)
        }
    }
}

/// As [`connect`], over a stream that leads to the server already, with a key in memory. `name` is what errors call
/// the server, `session` what it is told of who this is, `dial` opens another stream to it for reversed ports.
pub async fn connect_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    user: &str,
    key: Arc<PrivateKey>,
    host_key: PinnedKey,
    (name, session): (&str, &str),
    (dial, reverse): (Dial, Reverse),
) -> Result<Transport, SshError> {
    let login = Login { addr: name, user, host_key: &host_key, session };
    let identity = Identity::Session(key);
    let transport = login.in_time(login.set_up(stream, identity.clone())).await?;
    with_reverse(transport, dial, &login, identity, reverse).await
}

/// As [`connect_over`], with the key of an identity file.
pub async fn connect_over_with(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    user: &str,
    identity: &Path,
    host_key: PinnedKey,
    (name, session): (&str, &str),
    (dial, reverse): (Dial, Reverse),
) -> Result<Transport, SshError> {
    let identity = identity::load(identity).await?;
    let login = Login { addr: name, user, host_key: &host_key, session };
    let transport = login.in_time(login.set_up(stream, identity.clone())).await?;
    with_reverse(transport, dial, &login, identity, reverse).await
}

/// Who logs in where.
struct Login<'a> {
    addr: &'a str,
    user: &'a str,
    host_key: &'a PinnedKey,
    /// See [`SshTarget::session`].
    session: &'a str,
}

impl Login<'_> {
    async fn in_time<T>(&self, setup: impl Future<Output = Result<T, SshError>>) -> Result<T, SshError> {
        let setup = timeout(SETUP, Box::pin(setup)).await;
        setup.unwrap_or_else(|_| Err(SshError::Silent { addr: self.addr.to_owned() }))
    }

    async fn set_up(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        identity: Identity,
    ) -> Result<Transport, SshError> {
        let handle = self.connected(stream, identity, None).await?;
        let stream = self.open(&handle).await?;
        let (reader, writer) = tokio::io::split(stream);
        let link = Box::new(Connection(handle));
        Ok(Transport { reader: Box::new(reader), writer: Box::new(writer), level: None, link })
    }

    /// A connection that is logged in; the host key was compared first.
    async fn connected(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        identity: Identity,
        doors: Option<Doors>,
    ) -> Result<Handle<Verifier>, SshError> {
        let verifier = Verifier { pinned: self.host_key.clone(), doors };
        let config = Arc::new(algorithms::client_config());
        let connected = client::connect_stream(config, stream, verifier).await;
        let mut handle = connected.map_err(|error| error.explain(self))?;
        self.authenticate(&mut handle, identity).await?;
        Ok(handle)
    }

    async fn authenticate(&self, handle: &mut Handle<Verifier>, identity: Identity) -> Result<(), SshError> {
        let user = self.user.to_owned();
        let (path, public, result) = match identity {
            Identity::File(path, key) => {
                let public = key.public_key().clone();
                let key = PrivateKeyWithHashAlg::new(key, None);
                (
                    Some(path),
                    public,
                    handle.authenticate_publickey(user, key).await.map_err(|e| self.protocol(e))?,
                )
            }
            Identity::Session(key) => {
                let public = key.public_key().clone();
                let key = PrivateKeyWithHashAlg::new(key, None);
                (None, public, handle.authenticate_publickey(user, key).await.map_err(|e| self.protocol(e))?)
            }
            #[cfg(unix)]
            Identity::Agent(path, public) => {
                let lost = || SshError::Agent { identity: path.clone() };
                let mut agent = identity::agent::connect().await.ok_or_else(lost)?;
                let signed = handle.authenticate_publickey_with(user, public.clone(), None, &mut agent).await;
                (Some(path.clone()), public, signed.map_err(|_| lost())?)
            }
            #[cfg(not(unix))]
            Identity::Agent(identity, _) => return Err(SshError::Agent { identity }),
        };
        let addr = self.addr.to_owned();
        match (result, path) {
            (AuthResult::Success, _) => Ok(()),
            (AuthResult::Failure { .. }, Some(identity)) => {
                Err(SshError::Refused { addr, identity, fingerprint: fingerprint(&public) })
            }
            (AuthResult::Failure { .. }, None) => {
                Err(SshError::SessionKey { addr, fingerprint: fingerprint(&public) })
            }
        }
    }

    /// A channel on which the subsystem runs.
    async fn open(&self, handle: &Handle<Verifier>) -> Result<ChannelStream<Msg>, SshError> {
        let mut channel: Channel<Msg> = handle.channel_open_session().await.map_err(|e| self.protocol(e))?;
        self.take_seat(&mut channel, "").await?;
        channel.request_subsystem(true, SUBSYSTEM).await.map_err(|e| self.protocol(e))?;
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => return Ok(channel.into_stream()),
                Some(ChannelMsg::Failure | ChannelMsg::Close) | None => {
                    return Err(SshError::Subsystem { addr: self.addr.to_owned() });
                }
                Some(_) => {}
            }
        }
    }

    /// Says which session this is; returns when the connection that it had before is over. An agent that knows
    /// nothing of it says no, which is no failure.
    async fn take_seat(&self, channel: &mut Channel<Msg>, part: &str) -> Result<(), SshError> {
        if !self.session.is_empty() {
            let name = format!("{}{part}", self.session);
            channel.set_env(true, SESSION_VARIABLE, name).await.map_err(|e| self.protocol(e))?;
            program::answered(channel).await;
        }
        Ok(())
    }

    fn protocol(&self, source: russh::Error) -> SshError {
        SshError::Protocol { addr: self.addr.to_owned(), source }
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Compares the server's key with the pinned one, and takes no channel of the server's that was not asked for.
struct Verifier {
    pinned: PinnedKey,
    /// Where connections to reversed ports go.
    doors: Option<Doors>,
}

/// Why the connection could not be made; russh's callbacks cannot carry our target.
#[derive(Debug, Error)]
enum VerifyError {
    #[error("another host key: {found}")]
    Another { found: String },
    #[error(transparent)]
    Protocol(#[from] russh::Error),
}

impl VerifyError {
    fn explain(self, login: &Login<'_>) -> SshError {
        let addr = login.addr.to_owned();
        match self {
            Self::Another { found } => {
                SshError::HostKey { addr, found, pinned: login.host_key.fingerprint() }
            }
            Self::Protocol(source) => SshError::Protocol { addr, source },
        }
    }
}

impl client::Handler for Verifier {
    type Error = VerifyError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, VerifyError> {
        match key {
            PublicKeyOrCertificate::PublicKey { key, .. } if self.pinned.is(key) => Ok(true),
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                Err(VerifyError::Another { found: fingerprint(key) })
            }
            PublicKeyOrCertificate::Certificate(_) => {
                Err(VerifyError::Another { found: "a certificate".to_owned() })
            }
        }
    }

    // The library accepts what is not refused here: a server has nothing to open on a laptop but a reversed port. A reply
    // that is dropped refuses.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), VerifyError> {
        match &self.doors {
            Some(doors) => doors.offered(channel, port, reply).await,
            None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
        Ok(())
    }
}

/// A session's connection and the line of its reversed ports.
struct WithLine {
    ssh: Box<dyn Link>,
    line: Line,
}

impl Link for WithLine {
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            let Self { ssh, line } = *self;
            tokio::join!(ssh.close(), line.close()).0
        })
    }
}

/// Keeps the connection alive.
struct Connection(Handle<Verifier>);

impl Link for Connection {
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            let mut handle = self.0;
            // An agent that ended by itself has closed already.
            let _ = timeout(FAREWELL, handle.disconnect(Disconnect::ByApplication, "", "en")).await;
            let _ = timeout(FAREWELL, &mut handle).await;
            None
        })
    }
}
