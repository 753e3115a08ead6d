//! `devsync proxy`: standard input and output are a stream to the agent's SSH server; ssh's ProxyCommand.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cli::ProxyArgs;
use crate::error::{CommandError, Kind};
use crate::settings;
use crate::ssh_config::{Dir, identity};
use crate::way::{self, Way};

/// For what the agent still has to say when ssh has closed its side.
const FAREWELL: Duration = Duration::from_secs(5);
const PART: usize = 64 * 1024;

pub async fn run(args: &ProxyArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    let no_target = || CommandError::usage("no target is named").hint("devsync proxy deploy/demo");
    let route = settings::route(&args.target, &config, &project).ok_or_else(no_target)?;
    let dir = Dir::open(&crate::dirs::state())?;
    let way = way::open(&route, &identity(&dir)?).await?;
    if let Some(alias) = &args.alias {
        // Before any byte of the server: ssh reads it when it has the server's banner and its key.
        dir.pin(alias, &way.host_key)?;
    }
    let name = way.name.clone();
    let (reader, writer, end) = way.split();
    let carried = carry(reader, writer).await;
    let said = Way::said(end).await;
    match carried {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(CommandError::new(format!("the connection to {name} was lost"))
            .kind(Kind::Cluster)
            .cause(said.unwrap_or_else(|| error.to_string()))),
    }
}

/// Until the server closes, or for a moment after ssh did.
async fn carry(reader: impl AsyncRead + Unpin, writer: impl AsyncWrite + Unpin) -> io::Result<()> {
    let answers = pass(reader, tokio::io::stdout());
    tokio::pin!(answers);
    tokio::select! {
        ended = &mut answers => return ended,
        ended = pass(tokio::io::stdin(), writer) => ended?,
    };
    tokio::time::timeout(FAREWELL, answers).await.unwrap_or(Ok(()))
}

/// Each part at once: a prompt waits for no full buffer.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        match from.read(&mut part).await? {
            0 => return to.shutdown().await,
            len => {
                to.write_all(part.get(..len).unwrap_or_default()).await?;
                to.flush().await?;
            }
        }
    }
}
