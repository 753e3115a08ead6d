//! `devsync-agent serve`: from arguments to a running server, until SIGTERM or SIGINT.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    AuthorizedKeys, AuthorizedKeysError, HostKey, HostKeyError, Limits, SessionFn, SshConfig, serve,
};

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2222")]
    pub listen: SocketAddr,
    /// File with the public keys that may log in.
    #[arg(long, value_name = "FILE")]
    pub authorized_keys: PathBuf,
    /// The agent's own directory: its host key, records and locks; made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    AuthorizedKeys(#[from] AuthorizedKeysError),
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    #[error("cannot {what}")]
    Start { what: &'static str, source: io::Error },
}

/// Runs the server on this thread; blocking.
pub fn run(args: ServeArgs, session: Arc<SessionFn>) -> Result<(), ServeError> {
    let start = |what| move |source| ServeError::Start { what, source };
    let host_key = HostKey::kept(&args.state)?;
    let keys = AuthorizedKeys::new(args.authorized_keys.clone()).load()?;
    tracing::info!(keys, file = %args.authorized_keys.display(), "authorized keys");
    // Two threads: one connection's ciphers must not hold up another's, and a sidecar has little CPU.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(start("start the runtime"))?;
    runtime.block_on(async {
        let listen = |source| ServeError::Listen { address: args.listen, source };
        let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shutdown = shutdown_signals().map_err(start("watch for signals"))?;
        announce(&host_key, address).map_err(start("print the host key"))?;
        let config = SshConfig { host_key, authorized_keys: args.authorized_keys, limits: Limits::default() };
        serve(config, listener, session, shutdown).await;
        Ok(())
    })
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
