//! One program of a client, or its shell: started in the app's world, its streams carried, its end told; ended with
//! its group where the client goes first.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use devsync_protocol::contract::MISSING_SIGNAL;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use russh::server::{Handle, Msg};
use russh::{ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::channel::Stop;
use super::pump::{Control, inward, outward};
use super::terminal::{Terminal, Wish};
use super::throttle::Throttle;
use crate::shell::{self, LaunchError, Launched, Request, Streams, Task};
use crate::sys::pidfd::PidFd;
use crate::sys::readiness::watch;
use crate::target::find::Query;
use crate::world::World;

/// SSH_EXTENDED_DATA_STDERR.
const STDERR: u32 = 1;
/// What a client gets where nothing was executed, as from OpenSSH where a login fails.
const NOT_STARTED: u32 = 255;
/// What was written to a terminal before its program ended is still read for this long.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// From SIGHUP to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// What to run, as the client asked for it.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) request: Request,
    pub(super) terminal: Option<Wish>,
    /// The client knows the exit signal of a program that is not there.
    pub(super) is_told: bool,
}

/// Why a program was not started.
struct Unstarted {
    why: String,
    is_missing: bool,
}

impl From<String> for Unstarted {
    fn from(why: String) -> Self {
        Self { why, is_missing: false }
    }
}

/// The channel of a program.
pub(super) struct Line<'l> {
    pub(super) outgoing: &'l ChannelWriteHalf<Msg>,
    pub(super) handle: &'l Handle,
    pub(super) throttle: &'l Arc<Throttle>,
    pub(super) stop: &'l Stop,
}

/// The agent's ends of a program's streams.
struct Ends {
    input: Box<dyn AsyncWrite + Send + Unpin>,
    output: Box<dyn AsyncRead + Send + Unpin>,
    error: Option<pipe::Receiver>,
    terminal: Option<Terminal>,
}

/// Runs it to its end, or to the client's. An error is for the log; the client was told.
pub(super) async fn run(
    program: Program,
    target: Query,
    incoming: ChannelReadHalf,
    line: &Line<'_>,
) -> Result<(), String> {
    let is_told = program.is_told;
    let begun = tokio::task::spawn_blocking(move || begin(&program, &target)).await;
    let begun = begun.unwrap_or_else(|error| Err(error.to_string().into()));
    let (launched, streams) = match begun {
        Ok(begun) => begun,
        Err(Unstarted { why, is_missing: true }) if is_told => {
            let name = Sig::Custom(MISSING_SIGNAL.to_owned());
            let (id, handle) = (line.outgoing.id(), line.handle);
            let _ = handle.exit_signal_request(id, name, false, why.clone(), "en".to_owned()).await;
            let _ = line.outgoing.eof().await;
            return Err(why);
        }
        Err(Unstarted { why, .. }) => {
            let text = format!("devsync-agent: {why}\r\n");
            let _ = line.outgoing.extended_data_bytes(STDERR, text).await;
            let _ = line.outgoing.exit_status(NOT_STARTED).await;
            let _ = line.outgoing.eof().await;
            return Err(why);
        }
    };
    let mut running = Running::new(launched)?;
    let status = running.serve(streams, incoming, line).await;
    if let Some(status) = status {
        tell(status, line).await;
    }
    Ok(())
}

/// Opens the streams and starts the program; blocking.
fn begin(program: &Program, target: &Query) -> Result<(Launched, Ends), Unstarted> {
    let world = World::open(target).map_err(|error| with_hint(&error, error.hint()))?;
    let io = |error: io::Error| format!("cannot open the program's streams: {error}");
    let (streams, ends) = match &program.terminal {
        Some(wish) => terminal(&world, wish, program.request.task == Task::Beside)
            .map_err(|error| format!("cannot open a terminal: {error}"))?,
        None => pipes().map_err(io)?,
    };
    let launched = shell::launch(&world, &program.request, streams).map_err(|error| {
        let hint = match &error {
            LaunchError::Target(source) => source.hint(),
            _ => None,
        };
        let is_missing = matches!(error, LaunchError::Missing(_));
        Unstarted { why: with_hint(&error, hint), is_missing }
    })?;
    Ok((launched, ends))
}

fn with_hint(error: &dyn std::error::Error, hint: Option<String>) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    hint.map_or(text.clone(), |hint| format!("{text} (hint: {hint})"))
}

fn terminal(world: &World, wish: &Wish, is_beside: bool) -> io::Result<(Streams, Ends)> {
    let (terminal, slave) = Terminal::open((!is_beside).then_some(world), wish)?;
    let streams =
        Streams { output: slave.try_clone()?, error: slave.try_clone()?, input: slave, terminal: true };
    let ends = Ends {
        input: Box::new(terminal.clone()),
        output: Box::new(terminal.clone()),
        error: None,
        terminal: Some(terminal),
    };
    Ok((streams, ends))
}

fn pipes() -> io::Result<(Streams, Ends)> {
    let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?) };
    let ((input, feed), (output_end, output), (error_end, error)) = (pipe()?, pipe()?, pipe()?);
    let ends = Ends {
        input: Box::new(pipe::Sender::from_owned_fd(feed)?),
        output: Box::new(pipe::Receiver::from_owned_fd(output_end)?),
        error: Some(pipe::Receiver::from_owned_fd(error_end)?),
        terminal: None,
    };
    Ok((Streams { input, output, error, terminal: false }, ends))
}

/// A program that runs; not reaped before it is dropped, so that its number stays its own.
struct Running {
    launched: Launched,
    pidfd: AsyncFd<OwnedFd>,
}

impl Running {
    fn new(mut launched: Launched) -> Result<Self, String> {
        let watched =
            PidFd::open(launched.child.id()).map_err(io::Error::from).and_then(|pidfd| watch(pidfd.into()));
        match watched {
            Ok(pidfd) => Ok(Self { launched, pidfd }),
            Err(error) => {
                let _ = launched.child.kill();
                let _ = launched.child.wait();
                Err(format!("the program cannot be watched: {error}"))
            }
        }
    }

    /// Carries the streams; the program's end, or none where the client went first.
    async fn serve(&mut self, ends: Ends, incoming: ChannelReadHalf, line: &Line<'_>) -> Option<ExitStatus> {
        let Ends { input, output, error, terminal } = ends;
        let group = self.launched.group();
        let control = |control| match (control, &terminal) {
            (Control::Resize(size), Some(terminal)) => terminal.resize(size),
            (Control::Resize(_), None) => {}
            (Control::Signal(signal), _) => drop(number(&signal).map(|signal| killpg(group, signal))),
        };
        let drained = CancellationToken::new();
        let client = inward(incoming, input, line.throttle, &drained, control);
        let whole = async {
            let outputs = async {
                let error = async {
                    match error {
                        Some(error) => outward(error, line.outgoing, Some(STDERR), line.throttle).await,
                        None => Ok(()),
                    }
                };
                let _ = tokio::join!(outward(output, line.outgoing, None, line.throttle), error);
            };
            if terminal.is_none() {
                // As with OpenSSH: whoever still has the pipes is waited for.
                tokio::join!(outputs, exited(&self.pidfd));
                return;
            }
            let mut outputs = std::pin::pin!(outputs);
            tokio::select! {
                () = &mut outputs => exited(&self.pidfd).await,
                () = exited(&self.pidfd) => drop(timeout(LAST_WORDS, outputs).await),
            }
        };
        let ended = tokio::select! {
            () = whole => true,
            () = client => false,
            () = line.stop.input.cancelled() => false,
            () = line.stop.all.cancelled() => false,
        };
        drop(terminal);
        if !ended {
            self.end().await;
        }
        let status = self.launched.child.wait().ok();
        status.filter(|_| ended)
    }

    /// Ends the group: it is asked first.
    async fn end(&self) {
        let group = self.launched.group();
        // It may be gone already.
        let _ = killpg(group, Signal::SIGHUP);
        let _ = killpg(group, Signal::SIGCONT);
        let _ = timeout(GRACE, exited(&self.pidfd)).await;
        let _ = killpg(group, Signal::SIGKILL);
        exited(&self.pidfd).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After an end that was waited for this does nothing.
        if !matches!(self.launched.child.try_wait(), Ok(Some(_))) {
            let _ = killpg(self.launched.group(), Signal::SIGKILL);
            let _ = self.launched.child.wait();
        }
    }
}

/// Returns when the process has ended; nothing is reaped.
async fn exited(pidfd: &AsyncFd<OwnedFd>) {
    // An error would come again and again: treated as the end, the wait that follows tells.
    drop(pidfd.readable().await);
}

async fn tell(status: ExitStatus, line: &Line<'_>) {
    let _ = match (status.code(), status.signal()) {
        (Some(code), _) => {
            line.outgoing.exit_status(u32::try_from(code).unwrap_or(NOT_STARTED)).await.is_ok()
        }
        (None, signal) => {
            let (id, core) = (line.outgoing.id(), status.core_dumped());
            let name = name(signal.unwrap_or(0));
            line.handle.exit_signal_request(id, name, core, String::new(), "en".to_owned()).await.is_ok()
        }
    };
    let _ = line.outgoing.eof().await;
}

/// Names of RFC 4254, section 6.10, and those that OpenSSH sends too.
fn number(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(name) => match name.as_str() {
            "USR2" => Signal::SIGUSR2,
            "CONT" => Signal::SIGCONT,
            "STOP" => Signal::SIGSTOP,
            "TSTP" => Signal::SIGTSTP,
            "WINCH" => Signal::SIGWINCH,
            _ => return None,
        },
    })
}

fn name(signal: i32) -> Sig {
    match Signal::try_from(signal) {
        Ok(Signal::SIGABRT) => Sig::ABRT,
        Ok(Signal::SIGALRM) => Sig::ALRM,
        Ok(Signal::SIGFPE) => Sig::FPE,
        Ok(Signal::SIGHUP) => Sig::HUP,
        Ok(Signal::SIGILL) => Sig::ILL,
        Ok(Signal::SIGINT) => Sig::INT,
        Ok(Signal::SIGKILL) => Sig::KILL,
        Ok(Signal::SIGPIPE) => Sig::PIPE,
        Ok(Signal::SIGQUIT) => Sig::QUIT,
        Ok(Signal::SIGSEGV) => Sig::SEGV,
        Ok(Signal::SIGTERM) => Sig::TERM,
        Ok(Signal::SIGUSR1) => Sig::USR1,
        Ok(other) => Sig::Custom(other.as_str().trim_start_matches("SIG").to_owned()),
        Err(_) => Sig::Custom(format!("{signal}@devsync")),
    }
}
