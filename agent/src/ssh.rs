//! The agent's SSH server: public keys only; the subsystems `devsync` and `sftp`, programs, and forwards.
//!
//! Owns listening, limits and shutdown; each connection is a task of its own (`connection`), each session channel
//! a task (`channel`), with a thread where its work blocks. It knows nothing of what is said in a session.

mod algorithms;
mod authorized;
mod channel;
mod connection;
mod forward;
mod handler;
mod host_key;
mod inbox;
mod key_options;
mod lobby;
mod outbox;
mod penalty;
mod program;
mod pump;
mod registered;
mod seats;
mod socket;
mod terminal;
mod throttle;

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use russh::keys::PublicKey;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::target::find::Query;
use authorized::Refusal;
pub use authorized::{AuthorizedKeys, AuthorizedKeysError, LineError, readable_key};
pub use channel::Stop;
pub use host_key::{HostKey, HostKeyError};
use key_options::Rights;
pub use registered::{Grant, Registered};
use socket::Stream;

/// Wait after a failed accept (out of descriptors, mostly), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that were told to end and have not ended yet; more are not accepted.
const LEAVING: usize = 128;
/// Closed connections whose sockets are kept for a moment; each costs a descriptor and a timer.
const LINGERING: usize = 1024;

/// Runs one session; blocking, called on a thread of its own. It ends at end of input.
pub type SessionFn = dyn Fn(Box<dyn Read + Send>, Box<dyn Write + Send>, Caller) + Send + Sync;

/// For whom a session is, and how it is ended from outside.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: Peer,
    pub stop: Stop,
}

/// Who is at the other end of a session.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// As the client sent it: any name is accepted, and it decides nothing.
    pub user: String,
    /// SHA-256 fingerprint of the key that logged in.
    pub key: String,
    /// What the key was registered for; none for one of the file.
    pub grant: Option<Arc<Grant>>,
    rights: Rights,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.grant {
            Some(grant) => write!(f, "{} ({} {})", grant.who, self.address, self.key),
            None => write!(f, "{}@{} ({})", self.user.escape_debug(), self.address, self.key),
        }
    }
}

/// What a server is made of.
#[derive(Debug)]
pub struct SshConfig {
    pub host_key: HostKey,
    /// A file with keys that may log in.
    pub authorized_keys: Option<PathBuf>,
    /// Keys that may log in too.
    pub registered: Arc<Registered>,
    /// The app of keys that name none.
    pub target: Query,
    /// Forwards may lead to any address, and listen on any; else the pod's own only, and its loopback.
    pub open_forwards: bool,
    pub limits: Limits,
}

/// Limits of the server; the defaults are for one developer's pod.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From accept to a successful login.
    pub login_grace: Duration,
    /// Keys that one connection may try.
    pub auth_attempts: usize,
    /// Connections that have not logged in: beyond it the oldest of the commonest stage is closed. As many as can
    /// be afforded: the more there are, the longer each may take for its login while more and more come.
    pub unauthenticated: usize,
    /// The same for one source address.
    pub unauthenticated_per_source: usize,
    /// Connections that have logged in.
    pub sessions: usize,
    /// Sessions, programs and the like of one connection.
    pub channels: usize,
    /// Forwarded connections of one connection.
    pub forwards: usize,
    /// Addresses and sockets that one connection listens on.
    pub listeners: usize,
    /// How long sessions may take to end, and their clients to leave, after shutdown was asked for.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_grace: Duration::from_secs(30),
            auth_attempts: 3,
            unauthenticated: 192,
            unauthenticated_per_source: 160,
            sessions: 32,
            channels: 64,
            forwards: 256,
            listeners: 32,
            drain: Duration::from_secs(5),
        }
    }
}

/// What all connections share.
struct Shared {
    russh: Arc<russh::server::Config>,
    authorized: Option<AuthorizedKeys>,
    registered: Arc<Registered>,
    lobby: Arc<lobby::Lobby>,
    penalties: penalty::Penalties,
    /// Places for those that had to leave the lobby and do not know it yet.
    lingering: Semaphore,
    seats: Arc<seats::Seats>,
    sessions: Arc<Semaphore>,
    session: Arc<SessionFn>,
    target: Query,
    open_forwards: bool,
    limits: Limits,
}

impl Shared {
    fn new(config: SshConfig, session: Arc<SessionFn>) -> Self {
        let limits = config.limits;
        Self {
            russh: Arc::new(algorithms::server_config(config.host_key.private(), &limits)),
            authorized: config.authorized_keys.map(AuthorizedKeys::new),
            registered: config.registered,
            lobby: lobby::Lobby::new(limits.unauthenticated, limits.unauthenticated_per_source),
            penalties: penalty::Penalties::default(),
            lingering: Semaphore::new(LINGERING),
            seats: Arc::default(),
            sessions: Arc::new(Semaphore::new(limits.sessions)),
            session,
            target: config.target,
            open_forwards: config.open_forwards,
            limits,
        }
    }

    /// May this key log in from there, and what is it good for? A registered key needs no line in the file.
    fn check(&self, key: &PublicKey, source: IpAddr) -> Result<(Option<Arc<Grant>>, Rights), Refusal> {
        if let Some(grant) = self.registered.find(key, Instant::now()) {
            return Ok((Some(grant), Rights { beside: true, ..Rights::default() }));
        }
        let file = self.authorized.as_ref().ok_or(Refusal::Unknown)?;
        file.check(key, source, SystemTime::now()).map(|rights| (None, rights))
    }

    /// Which app a login is for.
    fn target(&self, peer: &Peer) -> Query {
        let named = peer.grant.as_ref().and_then(|grant| grant.target.clone());
        named.unwrap_or_else(|| self.target.clone())
    }
}

/// Serves `listener` until `shutdown`; then sessions see end of input, have `limits.drain` to end, and are cut.
/// Returns when every task is joined.
pub async fn serve(
    config: SshConfig,
    listener: TcpListener,
    session: Arc<SessionFn>,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared::new(config, session));
    let mut connections = JoinSet::new();
    let most = shared.limits.unauthenticated + shared.limits.sessions + LINGERING + LEAVING;
    loop {
        tokio::select! {
            Some(joined) = connections.join_next() => seen(joined),
            accepted = accept(&listener, &shutdown), if connections.len() < most => match accepted {
                Some((socket, address)) => {
                    let (shared, shutdown) = (Arc::clone(&shared), shutdown.child_token());
                    // Here, so that the order is that of their coming.
                    let ticket = shared.lobby.enter(address.ip());
                    connections.spawn(connection::run(Stream::Tcp(socket), address, ticket, shared, shutdown));
                }
                None => break,
            },
        }
    }
    drop(listener);
    while let Some(joined) = connections.join_next().await {
        seen(joined);
    }
}

/// Serves the one connection of a client that has the other end of a socket pair, until it ends or `shutdown`.
pub async fn serve_one(
    config: SshConfig,
    stream: UnixStream,
    session: Arc<SessionFn>,
    shutdown: CancellationToken,
) {
    let shared = Arc::new(Shared::new(config, session));
    // It is on this machine, and has no port.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ticket = shared.lobby.enter(address.ip());
    connection::run(Stream::Unix(stream), address, ticket, shared, shutdown).await;
}

/// A connection's task that panicked is a bug, and must not look like an end.
fn seen(joined: Result<(), JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The next connection; none after shutdown.
async fn accept(listener: &TcpListener, shutdown: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
