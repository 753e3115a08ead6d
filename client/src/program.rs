//! A program that runs in the app's world, whichever way it was started: its streams, its end, and how they are
//! joined with the streams here. Knows nothing of targets.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::error::{CommandError, StdoutError};
use crate::signals::Signals;
use crate::terminal::{self, Raw, Size};

/// The exit code of devsync's own failures, where the others are the program's: as ssh has it.
pub const OWN_FAILURE: u8 = 255;
/// One read of a stream.
const PART: usize = 64 * 1024;

/// For a program whose input has ended.
const LETS_GO: Duration = Duration::from_secs(5);

/// What is to run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The program and its arguments; none is the app's shell.
    pub words: Vec<String>,
    pub stdin: bool,
    /// The terminal here; with one the program gets one too.
    pub terminal: Option<Size>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Exit(u8),
    /// By a signal: its name without SIG.
    Signal(String),
    /// It was never started: the app's root does not have it, or it may not be executed.
    Missing(String),
}

impl End {
    /// As a shell has it: 128 and the signal's number.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            Self::Signal(name) => 128 + signal_number(name),
            Self::Missing(_) => OWN_FAILURE,
        }
    }
}

/// Linux' numbers of the signals that SSH names (RFC 4254); the pod is Linux, whatever this is.
fn signal_number(name: &str) -> u8 {
    const NUMBERS: [(&str, u8); 13] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("ABRT", 6),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
    ];
    NUMBERS.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number)
}

/// What is told to a running program beside its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Resize(Size),
    /// SIGINT, where it has no terminal.
    Interrupt,
}

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;
type Ending = Pin<Box<dyn Future<Output = Result<End, CommandError>> + Send>>;

/// A program that runs.
pub struct Program {
    /// Dropped: the end of its input.
    pub stdin: Option<Writer>,
    pub stdout: Reader,
    /// None where a terminal joins both.
    pub stderr: Option<Reader>,
    pub control: mpsc::Sender<Control>,
    /// Comes after the last output.
    pub end: Ending,
}

impl Program {
    /// Its end; what it says is dropped, and it has no input.
    pub async fn quietly(self) -> Result<End, CommandError> {
        let Self { stdin, stdout, stderr, control, end } = self;
        drop(stdin);
        let err = async {
            if let Some(stderr) = stderr {
                let _ = drain(stderr, tokio::io::sink()).await;
            }
        };
        let (_, (), end) = tokio::join!(drain(stdout, tokio::io::sink()), err, end);
        drop(control);
        end
    }

    /// Shows what it says until it ends, or until it is interrupted here: then its input ends, which it takes for the
    /// wish to end, and gets a moment for that.
    pub async fn watch(self) -> Result<End, CommandError> {
        let Self { stdin, stdout, stderr, control, end } = self;
        let mut signals = Signals::new()?;
        let mut all = Box::pin(async { tokio::try_join!(shown(stdout, stderr), end).map(|((), end)| end) });
        let ended = tokio::select! {
            ended = &mut all => ended,
            () = signals.next() => {
                drop(stdin);
                let late = Ok(End::Signal("INT".to_owned()));
                tokio::time::timeout(LETS_GO, all).await.unwrap_or(late)
            }
        };
        drop(control);
        ended
    }

    /// Joins its streams with those of this process until it ends; the terminal is as before afterwards.
    pub async fn carry(self, terminal: bool) -> Result<End, CommandError> {
        let raw = terminal.then(Raw::enter).transpose();
        let raw = raw.map_err(|e| CommandError::new("the terminal cannot be set up").cause(e))?;
        let Self { stdin, stdout, stderr, control, end } = self;
        let input = stdin.map(|writer| tokio::spawn(feed(writer)));
        let sizes = terminal.then(|| tokio::spawn(resize(control.clone())));
        let mut signals = Signals::new()?;
        let mut all = Box::pin(async { tokio::try_join!(shown(stdout, stderr), end).map(|((), end)| end) });
        let mut interrupted = false;
        let ended = loop {
            tokio::select! {
                ended = &mut all => break ended,
                () = signals.next() => {
                    // A second one does not wait for what the program makes of the first.
                    if interrupted || control.try_send(Control::Interrupt).is_err() {
                        break Ok(End::Signal("INT".to_owned()));
                    }
                    interrupted = true;
                }
            }
        };
        drop(raw);
        for task in [input, sizes].into_iter().flatten() {
            task.abort();
        }
        ended
    }
}

/// Both outputs, to their ends.
async fn shown(stdout: Reader, stderr: Option<Reader>) -> Result<(), CommandError> {
    let err = async {
        match stderr {
            Some(stderr) => drain(stderr, tokio::io::stderr()).await,
            None => Ok(()),
        }
    };
    // Where nobody reads the one, the other is not waited for.
    let shown = tokio::try_join!(drain(stdout, tokio::io::stdout()), err);
    shown.map(drop).map_err(|e| CommandError::from(StdoutError(e)))
}

/// Standard input, to its end.
async fn feed(mut to: Writer) {
    let mut input = tokio::io::stdin();
    let mut part = vec![0; PART];
    loop {
        match input.read(&mut part).await {
            Ok(0) | Err(_) => break,
            Ok(len) => {
                let written = to.write_all(part.get(..len).unwrap_or_default()).await;
                if written.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

async fn drain(mut from: Reader, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut part = vec![0; PART];
    loop {
        // An end of the link is told by the program's end.
        let Ok(len @ 1..) = from.read(&mut part).await else { return Ok(()) };
        to.write_all(part.get(..len).unwrap_or_default()).await?;
        to.flush().await?;
    }
}

async fn resize(control: mpsc::Sender<Control>) {
    let Ok(mut sizes) = terminal::Resizes::new() else { return };
    loop {
        let size = sizes.next().await;
        if control.send(Control::Resize(size)).await.is_err() {
            return;
        }
    }
}

/// The exit code for the end of a program that was `asked` for.
pub fn exit(end: &End) -> ExitCode {
    ExitCode::from(end.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_by_signal_is_told_as_a_shell_does() {
        assert_eq!(End::Exit(3).code(), 3);
        assert_eq!(End::Signal("KILL".into()).code(), 137);
        assert_eq!(End::Signal("INT".into()).code(), 130);
        assert_eq!(End::Missing("x".into()).code(), OWN_FAILURE);
    }
}
