//! `devsync-agent serve`: from arguments to a running server and its desk, until SIGTERM, SIGINT or `stop`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use devsync_protocol::contract::{Authorized, STATE_DIR};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::authorize::{Book, Desk, DeskError};
use crate::session::{self, Cut, Holders, SessionConfig};
use crate::ssh::{
    self, AuthorizedKeys, AuthorizedKeysError, Caller, HostKey, HostKeyError, Limits, Registered, SessionFn,
    SshConfig,
};
use crate::state::{StateDir, StateError};
use crate::target::find::Query;

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one, and so does a port that is taken.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2222")]
    pub listen: SocketAddr,
    /// File with public keys that may log in, beside those that `authorize` registers.
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: Option<PathBuf>,
    /// The agent's own directory: its host key, records and locks; made if it is missing.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state: PathBuf,
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
    /// Let forwards (ssh -L, -R, -D) reach any address, not only the pod's own and its loopback.
    #[arg(long)]
    pub open_forwards: bool,
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    AuthorizedKeys(#[from] AuthorizedKeysError),
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error("cannot {what}")]
    Start { what: &'static str, source: io::Error },
}

/// Runs the server on this thread; blocking.
pub fn run(args: ServeArgs) -> Result<(), ServeError> {
    let start = |what| move |source| ServeError::Start { what, source };
    let state = StateDir::open(&args.state)?;
    let desk = Desk::open(&state)?;
    let host_key = HostKey::kept(state.path())?;
    if let Some(file) = &args.authorized_keys {
        match AuthorizedKeys::new(file.clone()).load() {
            Ok(keys) => tracing::info!(keys, file = %file.display(), "authorized keys"),
            // It is looked for again at each login: a ConfigMap may come later, and ending here would end the pod's peace.
            Err(AuthorizedKeysError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), "there are no authorized keys yet");
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Two threads: one connection's ciphers must not hold up another's, and a sidecar has little CPU.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(start("start the runtime"))?;
    runtime.block_on(async {
        let listener = listen(args.listen)?;
        let listen = |source| ServeError::Listen { address: args.listen, source };
        let address = listener.local_addr().map_err(listen)?;
        let shutdown = shutdown_signals().map_err(start("watch for signals"))?;
        announce(&host_key, address).map_err(start("print the host key"))?;
        let registered = Arc::new(Registered::default());
        let server = Authorized {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            listen: address,
            host_key: host_key.public(),
        };
        let book = Arc::new(Book { registered: Arc::clone(&registered), server, shutdown: shutdown.clone() });
        let desk = tokio::spawn(desk.run(book));
        let session = sessions(args.target.clone(), state.path().to_owned());
        let authorized_keys = args.authorized_keys;
        let config = SshConfig {
            host_key,
            authorized_keys,
            registered,
            target: args.target,
            open_forwards: args.open_forwards,
            limits: Limits::default(),
        };
        ssh::serve(config, listener, session, shutdown).await;
        match desk.await {
            Ok(ended) => ended.map_err(start("register keys")),
            Err(error) => Err(start("register keys")(io::Error::other(error))),
        }
    })
}

/// What each channel runs: a session for its key's target.
pub(crate) fn sessions(target: Query, state: PathBuf) -> Arc<SessionFn> {
    let holders = Arc::new(Holders::default());
    Arc::new(move |reader, writer, caller: Caller| {
        let Caller { peer, stop } = caller;
        let grant = peer.grant.as_ref();
        let config = SessionConfig {
            target: grant.and_then(|grant| grant.target.clone()).unwrap_or_else(|| target.clone()),
            state: state.clone(),
            peer: grant.map_or_else(|| peer.to_string(), |grant| grant.who.clone()),
            holders: Arc::clone(&holders),
            cut: Some(Cut { input: stop.input, all: stop.all }),
            take_over: grant.map(|grant| Arc::clone(&grant.take_over)).unwrap_or_default(),
        };
        match session::serve(reader, writer, &config) {
            Ok(()) => tracing::info!(%peer, "session ended"),
            Err(error) => tracing::warn!(%peer, "session ended: {}", session::chain(&error)),
        }
    })
}

/// Connections that the kernel keeps until they are accepted. Where the queue is full it drops what comes, which comes
/// again a second later: a flood must not do that to a client. The kernel's own bound is net.core.somaxconn.
const QUEUE: u32 = 4096;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// The preferred port, or a free one of the same address where that is taken: the containers of a pod share them.
fn listen(preferred: SocketAddr) -> Result<TcpListener, ServeError> {
    match bind(preferred) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && preferred.port() != 0 => {
            tracing::warn!("port {} is taken here, so a free one is used", preferred.port());
            let address = SocketAddr::new(preferred.ip(), 0);
            bind(address).map_err(|source| ServeError::Listen { address, source })
        }
        bound => bound.map_err(|source| ServeError::Listen { address: preferred, source }),
    }
}

/// The host key on standard output: a known_hosts line, and its fingerprint as a comment.
fn announce(host_key: &HostKey, address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "# listening on {address}, host key {}", host_key.fingerprint())?;
    writeln!(out, "{}", host_key.known_hosts_line(address))?;
    out.flush()
}

/// A token that the first SIGTERM or SIGINT cancels.
fn shutdown_signals() -> io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        token.cancel();
    });
    Ok(shutdown)
}
