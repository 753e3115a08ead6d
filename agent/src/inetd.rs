//! `devsync-agent inetd`: one SSH connection on standard input and output, for a client that started this process and
//! names the one key that may log in. The host key is new each time; its public half is printed before the SSH banner,
//! where the protocol lets a server say what it likes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::serve::sessions;
use crate::ssh::{
    self, Grant, HostKey, HostKeyError, Limits, LineError, Registered, SshConfig, readable_key,
};
use crate::state::{StateDir, StateError};
use crate::target::find::Query;

/// For what the server still has to say after the client has gone.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct InetdArgs {
    /// The agent's own directory, for its records and locks; made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
    /// The public key that may log in, as OpenSSH writes it.
    #[arg(long, value_name = "KEY")]
    pub key: String,
    /// Who the developer is; told to the next one who comes.
    #[arg(long, value_name = "TEXT", default_value = "another client")]
    pub who: String,
}

#[derive(Debug, Error)]
pub enum InetdError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    #[error("the key is none that may log in")]
    Key(#[from] LineError),
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
}

/// Serves the connection on this thread, until either end closes it.
pub fn run(args: InetdArgs) -> Result<(), InetdError> {
    let failed = |what| move |source| InetdError::Io { what, source };
    let state = StateDir::open(&args.state)?;
    let host_key = HostKey::ephemeral()?;
    let registered = Arc::new(Registered::default());
    let grant = Grant {
        target: Some(args.target.clone()),
        who: args.who,
        since: SystemTime::now(),
        take_over: Arc::default(),
    };
    registered.add(readable_key(&args.key)?, grant, Instant::now());
    let mut out = io::stdout().lock();
    writeln!(out, "{}", host_key.public())
        .and_then(|()| out.flush())
        .map_err(failed("print the host key"))?;
    drop(out);
    let session = sessions(args.target.clone(), state.path().to_owned());
    let config = SshConfig {
        host_key,
        authorized_keys: None,
        registered,
        target: args.target,
        open_forwards: false,
        limits: Limits::default(),
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().map_err(failed("start the runtime"))?;
    let served = runtime.block_on(async {
        // Not the two themselves: they may be pipes or files, which cannot be asked whether they are ready, nor cut.
        let (stream, servers) = UnixStream::pair().map_err(failed("make a pair of sockets"))?;
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(ssh::serve_one(config, servers, session, shutdown.clone()));
        let carried = carry(stream).await;
        shutdown.cancel();
        let _ = server.await;
        carried.map_err(failed("carry the connection"))
    });
    // A read of standard input cannot be taken back.
    runtime.shutdown_background();
    served
}

/// Joins standard input and output with the server, until the server closes, or for a moment after the client did.
async fn carry(stream: UnixStream) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let answers = async {
        let mut out = tokio::io::stdout();
        let copied = copy(&mut from, &mut out).await;
        out.flush().await?;
        copied
    };
    let questions = async {
        let mut input = tokio::io::stdin();
        let copied = copy(&mut input, &mut to).await;
        let _ = to.shutdown().await;
        copied
    };
    tokio::pin!(answers);
    tokio::select! {
        ended = &mut answers => return ended.map(|_| ()),
        ended = questions => ended?,
    };
    match tokio::time::timeout(FAREWELL, answers).await {
        Ok(ended) => ended.map(|_| ()),
        Err(_) => Ok(()),
    }
}
