//! A program on a session channel: exec, or a shell, with or without a terminal.

use std::path::PathBuf;
use std::sync::Arc;

use devsync_protocol::contract::{BESIDE, MISSING_SIGNAL, PROGRAM, PROGRAM_VARIABLE, SHELL_VARIABLE};
use russh::client::{Handle, Msg};
use russh::keys::PrivateKey;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};

use super::{Identity, Login, PinnedKey, SshError, Verifier};
use crate::error::{CommandError, Kind};
use crate::program::{Control, End, Program, Wish};

/// What a stream holds before who writes it has to wait.
const BUFFER: usize = 64 * 1024;
/// Of why a program was not started, in characters.
const LONGEST_REASON: usize = 1024;
/// The terminal's kind where nobody says it.
const TERM: &str = "xterm";
/// Environment that a program may have from here; the server decides.
const LANGUAGE: [&str; 4] = ["LANG", "LC_ALL", "COLORTERM", "NO_COLOR"];

/// With which key a program's connection logs in.
pub enum ProgramKey {
    Session(Arc<PrivateKey>),
    /// An identity file's.
    File(PathBuf),
}

/// A channel of the agent's on which nothing was started yet.
pub struct ProgramChannel {
    handle: Handle<Verifier>,
    channel: Channel<Msg>,
    name: String,
    host_key: PinnedKey,
    /// The agent cannot enter the app's root: a shell here will be beside it.
    pub is_beside: bool,
}

impl ProgramChannel {
    /// Logs in over a stream to the server, and says what will be asked for.
    pub async fn open(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        key: ProgramKey,
        host_key: &PinnedKey,
        name: &str,
        wish: &Wish,
    ) -> Result<Self, CommandError> {
        let identity = match key {
            ProgramKey::Session(key) => Identity::Session(key),
            ProgramKey::File(path) => super::identity::load(&path).await.map_err(|error| {
                let hint = error.hint();
                CommandError::of(error).hint(hint)
            })?,
        };
        let login = login(name, host_key);
        let opened = login.in_time(async {
            let handle = login.connected(stream, identity, None).await?;
            let mut channel = handle.channel_open_session().await.map_err(|e| login.protocol(e))?;
            let (variable, value) = match wish.words.is_empty() {
                true => (SHELL_VARIABLE, BESIDE),
                false => (PROGRAM_VARIABLE, PROGRAM),
            };
            channel.set_env(true, variable, value).await.map_err(|e| login.protocol(e))?;
            // One that does not know it says no, and does what it always does.
            let is_taken = answered(&mut channel).await;
            Ok((handle, channel, is_taken && wish.words.is_empty()))
        });
        let (handle, channel, is_beside) = opened.await.map_err(explained)?;
        Ok(Self { handle, channel, name: name.to_owned(), host_key: host_key.clone(), is_beside })
    }

    /// Starts `wish`; no words are the shell.
    pub async fn start(self, wish: &Wish) -> Result<Program, CommandError> {
        let Self { handle, channel, name, host_key, .. } = self;
        let login = login(&name, &host_key);
        let started = login.in_time(start(&login, channel, wish)).await.map_err(explained)?;
        let Some(channel) = started else {
            return Err(CommandError::new(format!("the agent for {name} does not run {}", what(wish)))
                .hint("its log says why; `devsync doctor` says what it may do"));
        };
        Ok(carry(handle, channel, wish, name))
    }
}

fn login<'a>(name: &'a str, host_key: &'a PinnedKey) -> Login<'a> {
    Login { addr: name, user: "dev", host_key, session: "" }
}

fn explained(error: SshError) -> CommandError {
    let hint = error.hint();
    CommandError::of(error).kind(Kind::Cluster).hint_opt(hint)
}

fn what(wish: &Wish) -> String {
    if wish.words.is_empty() { "a shell".to_owned() } else { wish.words.join(" ") }
}

/// None where the server refuses.
async fn start(
    login: &Login<'_>,
    mut channel: Channel<Msg>,
    wish: &Wish,
) -> Result<Option<Channel<Msg>>, SshError> {
    let failed = |error| login.protocol(error);
    for name in LANGUAGE {
        if let Ok(value) = std::env::var(name) {
            channel.set_env(false, name, value).await.map_err(failed)?;
        }
    }
    if let Some(size) = wish.terminal {
        let term = std::env::var("TERM").unwrap_or_else(|_| TERM.to_owned());
        let (columns, rows) = (size.columns.into(), size.rows.into());
        channel.request_pty(true, &term, columns, rows, 0, 0, &[]).await.map_err(failed)?;
        if !answered(&mut channel).await {
            return Ok(None);
        }
    }
    match wish.words.is_empty() {
        true => channel.request_shell(true).await.map_err(failed)?,
        false => channel.exec(true, command_line(&wish.words)).await.map_err(failed)?,
    }
    Ok(answered(&mut channel).await.then_some(channel))
}

pub(super) async fn answered(channel: &mut Channel<Msg>) -> bool {
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return true,
            Some(ChannelMsg::Failure | ChannelMsg::Close) | None => return false,
            Some(_) => {}
        }
    }
}

/// As a shell reads it back: SSH carries one string.
fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=@+".contains(c);
    let quoted = words.iter().map(|word| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The program of a channel on which it runs already.
fn carry(handle: Handle<Verifier>, channel: Channel<Msg>, wish: &Wish, name: String) -> Program {
    let (reading, writing) = channel.split();
    let writing = Arc::new(writing);
    let (control, controls) = mpsc::channel(4);
    let (stdin, input) = duplex(BUFFER);
    let (out, stdout) = duplex(BUFFER);
    let (err, stderr) = duplex(BUFFER);
    let (ended, end) = oneshot::channel();
    tokio::spawn(receive(reading, out, err, ended));
    tokio::spawn(feed(input, Arc::clone(&writing)));
    tokio::spawn(steer(controls, writing));
    let with_input = wish.stdin || wish.terminal.is_some();
    Program {
        // Dropped where there is none, which is its end.
        stdin: with_input.then_some(Box::new(stdin) as _),
        stdout: Box::new(stdout),
        stderr: wish.terminal.is_none().then_some(Box::new(stderr) as _),
        control,
        end: Box::pin(async move {
            let end = end.await.ok().flatten();
            drop(handle);
            end.ok_or_else(|| {
                CommandError::new(format!("the connection to {name} was lost")).kind(Kind::Cluster)
            })
        }),
    }
}

/// Output until the channel is closed; then the end, if it was told.
async fn receive(
    mut reading: ChannelReadHalf,
    mut out: DuplexStream,
    mut err: DuplexStream,
    ended: oneshot::Sender<Option<End>>,
) {
    let mut end = None;
    while let Some(message) = reading.wait().await {
        let written = match message {
            ChannelMsg::Data { data } => out.write_all(&data).await,
            ChannelMsg::ExtendedData { data, ext: 1 } => err.write_all(&data).await,
            ChannelMsg::ExitStatus { exit_status } => {
                end = Some(End::Exit(u8::try_from(exit_status).unwrap_or(u8::MAX)));
                Ok(())
            }
            ChannelMsg::ExitSignal { signal_name: Sig::Custom(name), error_message, .. }
                if name == MISSING_SIGNAL =>
            {
                end = Some(End::Missing(error_message.chars().take(LONGEST_REASON).collect()));
                Ok(())
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                end = Some(End::Signal(signal(&signal_name)));
                Ok(())
            }
            ChannelMsg::Close => break,
            _ => Ok(()),
        };
        if written.is_err() {
            break;
        }
    }
    drop((out, err));
    let _ = ended.send(end);
}

async fn feed(mut input: DuplexStream, to: Arc<ChannelWriteHalf<Msg>>) {
    let mut part = vec![0; BUFFER / 2];
    while let Ok(len @ 1..) = input.read(&mut part).await {
        if to.data(part.get(..len).unwrap_or_default()).await.is_err() {
            return;
        }
    }
    let _ = to.eof().await;
}

async fn steer(mut controls: mpsc::Receiver<Control>, to: Arc<ChannelWriteHalf<Msg>>) {
    while let Some(control) = controls.recv().await {
        let told = match control {
            Control::Resize(size) => to.window_change(size.columns.into(), size.rows.into(), 0, 0).await,
            Control::Interrupt => to.signal(Sig::INT).await,
        };
        if told.is_err() {
            return;
        }
    }
}

fn signal(name: &Sig) -> String {
    match name {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were() {
        let line = |words: &[&str]| command_line(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["ls", "-l", "/app"]), "ls -l /app");
        assert_eq!(line(&["echo", "it's $HOME", ""]), r"echo 'it'\''s $HOME' ''");
    }
}
