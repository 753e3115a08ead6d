//! One session channel: waits for what is asked for, and runs it: a sync session or SFTP on a thread of its own, or a
//! program. The handler sees the same requests and answers them; both decide alike.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devsync_protocol::contract::{BESIDE, PROGRAM, PROGRAM_VARIABLE, SHELL_VARIABLE, SUBSYSTEM};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, InboxReader};
use super::outbox::{OutboxWriter, outbox};
use super::program::{self, Line, Program};
use super::terminal::Wish;
use super::throttle::Throttle;
use super::{Caller, Peer, SessionFn};
use crate::sftp::{self, Tally};
use crate::shell::{self, Request, Task};
use crate::target::find::Query;
use crate::world::World;

/// The subsystem's name in the draft, and a command= that means the same.
pub(super) const SFTP: &str = "sftp";
const INTERNAL_SFTP: &str = "internal-sftp";
/// Variables that a client may set, and bytes of one.
const MOST_VARIABLES: usize = 64;
const LONGEST_VARIABLE: usize = 4096;
/// In the log.
const SHOWN_COMMAND: usize = 300;

/// How sessions are ended.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// End of input: a session may still answer.
    pub input: CancellationToken,
    /// The client is gone: what was not sent yet is dropped.
    pub all: CancellationToken,
}

/// What the channels of a connection share.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) peer: Peer,
    pub(super) target: Query,
    pub(super) session: Arc<SessionFn>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) stop: Stop,
    pub(super) handle: Handle,
    /// The channels whose shell can be beside the app, as their client was told: the agent cannot enter its root.
    pub(super) beside: Arc<Mutex<HashSet<ChannelId>>>,
}

/// What a channel is for.
enum Work {
    Sync,
    Sftp,
    Program(Program),
}

/// Serves a channel until it is closed and its work has ended; `place` is kept as long.
pub(super) async fn run(channel: Channel<Msg>, place: OwnedSemaphorePermit, client: Client) {
    let (mut incoming, outgoing) = channel.split();
    let asked = tokio::select! {
        asked = asked(outgoing.id(), &mut incoming, &client) => asked,
        () = client.stop.input.cancelled() => None,
        () = client.stop.all.cancelled() => None,
    };
    if let Some(work) = asked {
        let child = Stop { input: client.stop.input.child_token(), all: client.stop.all.child_token() };
        let client = Client { stop: child, ..client };
        serve(work, incoming, &outgoing, &client).await;
    }
    let _ = outgoing.close().await;
    drop(place);
}

async fn serve(work: Work, incoming: ChannelReadHalf, outgoing: &ChannelWriteHalf<Msg>, client: &Client) {
    let peer = &client.peer;
    let served = match work {
        Work::Sync => {
            tracing::info!(%peer, "session begins");
            let caller = Caller { peer: peer.clone(), stop: client.stop.clone() };
            let session = Arc::clone(&client.session);
            carry(incoming, outgoing, client, move |reader, writer| {
                session(Box::new(reader), Box::new(writer), caller);
            })
            .await
        }
        Work::Sftp => {
            tracing::info!(%peer, "sftp begins");
            let (peer, target) = (peer.clone(), client.target.clone());
            carry(incoming, outgoing, client, move |reader, writer| {
                serve_sftp(&peer, &target, reader, writer)
            })
            .await
        }
        Work::Program(program) => {
            let (command, terminal) = (named(&program.request.task), program.terminal.is_some());
            tracing::info!(%peer, terminal, command, "program begins");
            let line =
                Line { outgoing, handle: &client.handle, throttle: &client.throttle, stop: &client.stop };
            match program::run(program, client.target.clone(), incoming, &line).await {
                Ok(()) => tracing::info!(%peer, "program ended"),
                Err(error) => tracing::warn!(%peer, error, "program not started"),
            }
            Ok(())
        }
    };
    if let Err(error) = served {
        tracing::warn!(%peer, %error, "session could not be started");
    }
}

fn named(task: &Task) -> String {
    match task {
        Task::Shell(Some(command)) => shown(command),
        Task::Program(words) => shown(&words.join(&b' ')),
        Task::Beside => "a shell beside the app".to_owned(),
        Task::Shell(None) | Task::Look => "a shell".to_owned(),
    }
}

fn shown(command: &[u8]) -> String {
    let text = String::from_utf8_lossy(command.get(..SHOWN_COMMAND).unwrap_or(command));
    text.escape_debug().to_string()
}

/// What the client asks for before it closes the channel: the first subsystem that is known, program or shell.
async fn asked(id: ChannelId, incoming: &mut ChannelReadHalf, client: &Client) -> Option<Work> {
    let peer = &client.peer;
    let mut terminal = None;
    let mut environment = Vec::new();
    let (mut beside, mut direct) = (false, false);
    loop {
        let command = match incoming.wait().await? {
            ChannelMsg::RequestSubsystem { name, .. } if is_subsystem(&name) => match &peer.rights.command {
                Some(_) => Some(name.into_bytes()),
                None if name == SFTP => return Some(Work::Sftp),
                None => return Some(Work::Sync),
            },
            ChannelMsg::Exec { command, .. } => Some(command),
            ChannelMsg::RequestShell { .. } => None,
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
                ..
            } => {
                if peer.rights.terminal {
                    let size = [col_width, row_height, pix_width, pix_height];
                    terminal = Some(Wish { term, size, modes: terminal_modes });
                }
                continue;
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                if let Some(wish) = &mut terminal {
                    wish.size = [col_width, row_height, pix_width, pix_height];
                }
                continue;
            }
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                match (variable_name.as_str(), variable_value.as_str()) {
                    (SHELL_VARIABLE, BESIDE) => beside = peer.rights.beside,
                    (PROGRAM_VARIABLE, PROGRAM) => direct = true,
                    _ => {}
                }
                if permits_variable(&variable_name, &variable_value) && environment.len() < MOST_VARIABLES {
                    environment.push(format!("{variable_name}={variable_value}").into_bytes());
                }
                continue;
            }
            ChannelMsg::Close => return None,
            _ => continue,
        };
        // The handler has answered the variable before this request came.
        let beside = beside && client.beside.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        return Some(forced(peer, command, environment, Manner { terminal, beside, direct }));
    }
}

/// How a program is to be run.
struct Manner {
    terminal: Option<Wish>,
    /// A shell: beside the app.
    beside: bool,
    /// A command: its words are a program and its arguments.
    direct: bool,
}

/// The program, or what the key says instead.
fn forced(
    peer: &Peer,
    command: Option<Vec<u8>>,
    mut environment: Vec<Vec<u8>>,
    Manner { terminal, beside, direct }: Manner,
) -> Work {
    let is_forced = peer.rights.command.is_some();
    let command = match &peer.rights.command {
        Some(forced) if forced == INTERNAL_SFTP => return Work::Sftp,
        Some(forced) => {
            if let Some(original) = command {
                environment.push([b"SSH_ORIGINAL_COMMAND=", original.as_slice()].concat());
            }
            Some(forced.clone().into_bytes())
        }
        None => command,
    };
    if let Some(wish) = &terminal {
        environment.push(format!("TERM={}", wish.term).into_bytes());
    }
    let (address, port) = (peer.address.ip(), peer.address.port());
    environment.push(format!("SSH_CONNECTION={address} {port} {address} 0").into_bytes());
    let direct = direct && !is_forced;
    // What is no list of words is the name of a program that is not there: never something for a shell.
    let words = command.as_deref().filter(|_| direct).map(|command| {
        shell::split(command).filter(|words| !words.is_empty()).unwrap_or_else(|| vec![command.to_vec()])
    });
    let task = match (words, command) {
        (Some(words), _) => Task::Program(words),
        (None, None) if beside => Task::Beside,
        (None, command) => Task::Shell(command),
    };
    Work::Program(Program { request: Request { task, environment }, terminal, is_told: direct || beside })
}

/// Subsystems that are offered.
pub(super) fn is_subsystem(name: &str) -> bool {
    name == SUBSYSTEM || name == SFTP
}

/// Variables that say how a person wants to be spoken to, and git's protocol version; nothing that loads code.
pub(super) fn permits_variable(name: &str, value: &str) -> bool {
    let known = matches!(
        name,
        "LANG" | "LANGUAGE" | "COLORTERM" | "NO_COLOR" | "FORCE_COLOR" | "GIT_PROTOCOL" | "TZ"
    ) || name
        .strip_prefix("LC_")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
    known && value.len() <= LONGEST_VARIABLE && !value.contains('\0')
}

/// The whole of an SFTP session; blocking.
fn serve_sftp(peer: &Peer, target: &Query, mut reader: InboxReader, writer: OutboxWriter) {
    let world = match World::open(target) {
        Ok(world) => world,
        Err(error) => return tracing::warn!(%peer, %error, hint = error.hint(), "sftp refused"),
    };
    let mut tally = Tally::default();
    let served = sftp::serve(&mut reader, &mut |packet| writer.send(packet), &world, &mut tally);
    let Tally { read, written, opened_to_write, changed } = tally;
    match served {
        Ok(()) => tracing::info!(%peer, read, written, opened_to_write, changed, "sftp ended"),
        Err(error) => {
            tracing::warn!(%peer, read, written, opened_to_write, changed, %error, "sftp ended");
        }
    }
}

/// Runs blocking `work` on a thread of its own, and carries bytes between it and the channel, both ways at once.
async fn carry(
    incoming: ChannelReadHalf,
    outgoing: &ChannelWriteHalf<Msg>,
    client: &Client,
    work: impl FnOnce(InboxReader, OutboxWriter) + Send + 'static,
) -> io::Result<()> {
    let stop = &client.stop;
    let (inbox, reader) = Inbox::new(Arc::clone(&client.throttle));
    let (writer, parts) = outbox(Arc::clone(&client.throttle));
    let (ended, end) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("session".into()).spawn(move || {
        work(reader, writer);
        drop(ended);
    })?;
    let receiving = async {
        tokio::select! {
            () = receive(incoming, &inbox, stop) => {}
            // The session may end before its client does.
            _ = end => {}
        }
    };
    tokio::join!(receiving, send(outgoing, parts, stop));
    // Both of its ends are closed now; work that it has begun it may still finish.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("a session panicked");
    }
    Ok(())
}

/// Moves what the client sends into the inbox, to the end of its input.
async fn receive(mut incoming: ChannelReadHalf, inbox: &Inbox, stop: &Stop) {
    let whole = async {
        loop {
            match incoming.wait().await {
                Some(ChannelMsg::Data { data }) => inbox.push(data),
                Some(ChannelMsg::Eof) => inbox.end(),
                None | Some(ChannelMsg::Close) => return stop.all.cancel(),
                Some(_) => {}
            }
        }
    };
    tokio::select! {
        () = whole => {}
        () = stop.all.cancelled() => {}
        () = async { stop.input.cancelled().await; inbox.end(); stop.all.cancelled().await } => {}
    }
    inbox.end();
}

/// Moves what the session answers to the client, then says that it was all.
async fn send(outgoing: &ChannelWriteHalf<Msg>, mut parts: Receiver<Bytes>, stop: &Stop) {
    let whole = async {
        while let Some(part) = parts.recv().await {
            outgoing.data_bytes(part).await?;
        }
        // Before the end: a client that has seen both ends closes at once, and we stop listening.
        outgoing.exit_status(0).await?;
        outgoing.eof().await
    };
    tokio::select! {
        sent = whole => if sent.is_err() { stop.all.cancel() },
        () = stop.all.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_load_code_are_not_taken() {
        for name in ["LANG", "LC_ALL", "LC_TIME", "COLORTERM", "GIT_PROTOCOL"] {
            assert!(permits_variable(name, "x"), "{name}");
        }
        for name in ["LD_PRELOAD", "PATH", "LC_ALL=x", "BASH_ENV", "PYTHONPATH", ""] {
            assert!(!permits_variable(name, "x"), "{name}");
        }
        assert!(!permits_variable("LANG", "a\0b"));
    }
}
