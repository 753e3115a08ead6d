//! Connections of debuggers, one after the other: each gets a debugger of its own beside the app.

use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Session;
use crate::cli::{DebugArgs, Output};
use crate::commands::say_json;
use crate::error::CommandError;
use crate::program::{End, Program};
use crate::signals::Signals;

/// For a debugger to let go of the app: more than the agent gives it.
const DETACH: Duration = Duration::from_secs(15);
/// Of what a debugger says on standard error.
const LONGEST: u64 = 64 * 1024;

/// Until Ctrl-C, or with --once until the first has gone.
pub(super) async fn run(
    args: &DebugArgs,
    session: Session,
    listener: TcpListener,
) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::new()?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => return Err(CommandError::new("no connection can be accepted").cause(error)),
            },
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        event(args, "connected", "a debugger is connected")?;
        let carried = carry(&session, stream, &mut signals).await;
        match carried {
            Ok(Gone::Debugger) => event(args, "detached", "the debugger has gone, the app runs on")?,
            Ok(Gone::Us) => {
                event(args, "detached", "the app runs on")?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) if args.once => return Err(error),
            Err(error) => eprint!("{}", crate::error::render(&error, crate::error::colour_on_stderr())),
        }
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn event(args: &DebugArgs, name: &str, text: &str) -> Result<(), CommandError> {
    match args.output.output {
        Output::Json => say_json(&serde_json::json!({"event": name})),
        Output::Text => {
            if !args.output.quiet {
                eprintln!("{text}");
            }
            Ok(())
        }
    }
}

/// Who went.
enum Gone {
    Debugger,
    Us,
}

async fn carry(session: &Session, stream: TcpStream, signals: &mut Signals) -> Result<Gone, CommandError> {
    let _ = stream.set_nodelay(true);
    let Program { stdin, mut stdout, stderr, end, control } = session.start().await?;
    let (mut from, mut to) = stream.into_split();
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(LONGEST).read_to_end(&mut said).await;
        }
        String::from_utf8_lossy(&said).into_owned()
    });
    let gone = {
        let mut stdin = stdin.ok_or_else(|| CommandError::new("the debugger came without its input"))?;
        let gone = tokio::select! {
            _ = copy(&mut from, &mut stdin) => Gone::Debugger,
            _ = copy(&mut stdout, &mut to) => Gone::Debugger,
            () = signals.next() => Gone::Us,
        };
        // That it is dropped is not seen at the other end of pods/exec; an error is a debugger that has ended.
        let _ = stdin.shutdown().await;
        gone
    };
    // Its input is closed now; what it still says is read, so that it never waits for us.
    let rest = tokio::spawn(async move { copy(&mut stdout, &mut tokio::io::sink()).await });
    let ended = timeout(DETACH, end).await;
    rest.abort();
    drop(control);
    match ended {
        Ok(Ok(End::Exit(0))) => Ok(gone),
        Ok(Ok(end)) => Err(session.beside.failed(&said.await.unwrap_or_default(), &end)),
        // A server that cannot close one stream ends all when the input ends; what the app is like then is asked.
        Ok(Err(_)) | Err(_) => released(session).await.map(|()| gone),
    }
}

/// Looks until nobody traces the app any more.
async fn released(session: &Session) -> Result<(), CommandError> {
    let deadline = tokio::time::Instant::now() + DETACH;
    loop {
        let app = super::look(&session.beside).await?;
        let Some((pid, name)) = app.tracer else { return Ok(()) };
        if tokio::time::Instant::now() >= deadline {
            return Err(CommandError::new(format!("the app in {} is still held", session.beside.name))
                .cause(format!("{name} (pid {pid}) has not let go of it"))
                .hint("devsync debug again says whether it still is; `detach` in the debugger lets go"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
