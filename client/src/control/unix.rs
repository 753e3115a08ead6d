//! The control socket on systems with Unix sockets.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use devsync_protocol::digest::Digest;
use devsync_protocol::restart::RestartMode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{ANSWER_WITHIN, Answer, ControlError, Desk, Holder, MAX_LINE, Question, Seat};
use crate::engine::{Command, Difference};
use crate::error::CommandError;

/// Connections that are served at once.
const MAX_CLIENTS: usize = 16;

/// The claim on a target: its lock, and the socket while it is served.
pub struct Attached {
    lock: PathBuf,
    socket: PathBuf,
    /// Locked while this attach lives.
    _file: File,
    task: JoinHandle<()>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.task.abort();
        // While the lock is held, so that nobody else's socket is removed.
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(&self.lock);
    }
}

/// The directory of all control sockets of this user.
fn directory() -> Result<PathBuf, ControlError> {
    let uid = nix::unistd::geteuid().as_raw();
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
        Some(runtime) => PathBuf::from(runtime).join("devsync"),
        None => std::env::temp_dir().join(format!("devsync-{uid}")),
    };
    let failed = |source| ControlError::Dir { dir: dir.clone(), source };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let meta = std::fs::symlink_metadata(&dir).map_err(failed)?;
    let private = meta.is_dir() && meta.uid() == uid && meta.mode() & 0o077 == 0;
    if private { Ok(dir) } else { Err(ControlError::NotPrivate { dir }) }
}

fn name_of(target: &str) -> String {
    Digest::of(target.as_bytes()).to_string()[..16].to_owned()
}

/// Claims the target and serves questions about it.
pub fn listen(holder: &Holder, desk: Desk) -> Result<Attached, ControlError> {
    listen_in(&directory()?, holder, desk)
}

fn listen_in(dir: &Path, holder: &Holder, desk: Desk) -> Result<Attached, ControlError> {
    let name = name_of(&holder.target);
    let (lock, socket) = (dir.join(format!("{name}.lock")), dir.join(format!("{name}.sock")));
    let file = claim(&lock, holder)?;
    // The lock is ours, so whoever made this socket is gone.
    let _ = std::fs::remove_file(&socket);
    let failed = |source| ControlError::Socket { path: socket.clone(), source };
    let listener = UnixListener::bind(&socket).map_err(failed)?;
    let task = tokio::spawn(serve(listener, desk));
    Ok(Attached { lock, socket, _file: file, task })
}

fn claim(path: &Path, holder: &Holder) -> Result<File, ControlError> {
    let failed = |source| ControlError::Socket { path: path.to_owned(), source };
    loop {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(&mut file, holder)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The one before may have removed the file between our open and our lock.
        let same = std::fs::metadata(path).ok().zip(file.metadata().ok());
        if same.is_none_or(|(there, ours)| there.ino() != ours.ino()) {
            continue;
        }
        let text = serde_json::to_string(holder).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
        return Ok(file);
    }
}

fn taken(file: &mut File, wanted: &Holder) -> ControlError {
    let Holder { pid, target, directory, since } = read_holder(file).unwrap_or_else(|| Holder {
        pid: 0,
        target: wanted.target.clone(),
        directory: PathBuf::from("another directory"),
        since: "just now".to_owned(),
    });
    ControlError::Taken { target, pid, directory: directory.display().to_string(), since }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_LINE).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The attaches of this user that are running now.
pub fn running() -> Result<Vec<Holder>, ControlError> {
    running_in(&directory()?)
}

fn running_in(dir: &Path) -> Result<Vec<Holder>, ControlError> {
    let failed = |source| ControlError::Dir { dir: dir.to_owned(), source };
    let mut holders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)?.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "lock") {
            continue;
        }
        let Ok(mut file) = File::open(&path) else { continue };
        // Shared, so that two who ask do not take each other for the attach.
        if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            holders.extend(read_holder(&mut file));
        }
    }
    holders.sort_by(|a: &Holder, b| a.target.cmp(&b.target));
    Ok(holders)
}

async fn serve(listener: UnixListener, desk: Desk) {
    let uid = nix::unistd::geteuid().as_raw();
    let mut clients = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while clients.try_join_next().is_some() {}
        let is_owner = stream.peer_cred().is_ok_and(|cred| cred.uid() == uid || cred.uid() == 0);
        if is_owner && clients.len() < MAX_CLIENTS {
            clients.spawn(answer(stream, desk.clone()));
        }
    }
}

async fn answer(stream: UnixStream, desk: Desk) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let read = BufReader::new(reader.take(MAX_LINE)).read_line(&mut line).await;
    let answer = match read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
        Some(question) => put(question, &desk).await,
        None => CommandError::new("the running attach does not understand this devsync")
            .hint("attach again with this version")
            .into(),
    };
    let mut text = serde_json::to_string(&answer).unwrap_or_default();
    text.push('\n');
    let _ = writer.write_all(text.as_bytes()).await;
}

async fn put(question: Question, desk: &Desk) -> Answer {
    let seats = desk.seats();
    match question {
        Question::Status => Answer::Status { targets: seats.iter().map(|seat| seat.board.read()).collect() },
        Question::Verify => {
            let all = of_all(&seats, |then| Command::Verify { then }).await;
            all.map_or_else(Answer::from, |all| {
                let named = all.into_iter().flat_map(|(name, differences)| {
                    differences.into_iter().map(move |Difference { path, what }| {
                        let path =
                            name.as_ref().map_or_else(|| path.clone(), |name| format!("{name}: {path}"));
                        Difference { path, what }
                    })
                });
                Answer::Verified { differences: named.collect() }
            })
        }
        // Of several pods the newest: they have the same files.
        Question::Pull { path, into, overwrite } => {
            let first = seats.first();
            exchange(first, |then| Command::Pull { path, into, overwrite, then })
                .await
                .map_or_else(Answer::from, Answer::Pulled)
        }
        Question::Restart { mode, grace } => {
            let mode = match mode.map(|m| m.parse::<RestartMode>()).transpose() {
                Ok(mode) => mode,
                Err(error) => return CommandError::of(error).into(),
            };
            let grace = match crate::settings::grace(grace) {
                Ok(grace) => grace,
                Err(error) => return error.into(),
            };
            let all = of_all(&seats, |then| Command::Restart { mode: mode.clone(), grace, then }).await;
            all.map_or_else(Answer::from, |all| {
                let lines = all.into_iter().map(|(name, text)| match name {
                    Some(name) => format!("[{name}] {text}"),
                    None => text,
                });
                Answer::Restarted { text: lines.collect::<Vec<_>>().join("\n") }
            })
        }
    }
}

/// Asks all at once; the answers with their names where there are several. The first failure is the answer.
async fn of_all<T>(
    seats: &[Seat],
    command: impl Fn(oneshot::Sender<Result<T, CommandError>>) -> Command,
) -> Result<Vec<(Option<String>, T)>, CommandError> {
    if seats.is_empty() {
        return Err(ending());
    }
    let several = seats.len() > 1;
    let asked = seats.iter().map(|seat| async {
        let answer = exchange(Some(seat), &command).await?;
        Ok((several.then(|| seat.name.clone()), answer))
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}

fn ending() -> CommandError {
    CommandError::new("the attach is ending, or another restart took this one's place")
}

async fn exchange<T>(
    seat: Option<&Seat>,
    command: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Command,
) -> Result<T, CommandError> {
    let (then, answer) = oneshot::channel();
    let seat = seat.ok_or_else(ending)?;
    seat.commands.send(command(then)).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())?
}

/// Asks a running attach.
pub async fn ask(holder: &Holder, question: &Question) -> Result<Answer, CommandError> {
    ask_in(&directory()?, holder, question).await
}

async fn ask_in(dir: &Path, holder: &Holder, question: &Question) -> Result<Answer, CommandError> {
    let no_answer = || ControlError::NoAnswer { pid: holder.pid };
    let path = dir.join(format!("{}.sock", name_of(&holder.target)));
    let exchange = async {
        let stream = UnixStream::connect(&path).await?;
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_string(question).unwrap_or_default();
        line.push('\n');
        writer.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(reader).read_line(&mut answer).await?;
        Ok::<String, std::io::Error>(answer)
    };
    let answer = timeout(ANSWER_WITHIN, exchange).await.map_err(|_| no_answer())?;
    let answer = answer.map_err(|e| CommandError::from(no_answer()).cause(e))?;
    match serde_json::from_str(&answer) {
        Ok(answer @ Answer::Failed { .. }) => Err(super::failure(answer)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(no_answer().into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::{Board, State};

    fn holder(target: &str) -> Holder {
        Holder {
            pid: 7,
            target: target.to_owned(),
            directory: "/home/me".into(),
            since: "10:00:00 UTC".to_owned(),
        }
    }

    fn desk() -> (Desk, mpsc::Receiver<Command>) {
        let (commands, rx) = mpsc::channel(1);
        let desk = Desk::default();
        let board = Board::new("pid/1", "10:00:00 UTC", "/home/me".as_ref());
        desk.join(Seat { name: "pid/1".to_owned(), commands, board });
        (desk, rx)
    }

    #[tokio::test]
    async fn a_target_has_one_attach_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tx, _rx) = desk();
        let first = listen_in(dir.path(), &holder("pid/1"), tx.clone()).expect("the first");
        let second = listen_in(dir.path(), &holder("pid/1"), tx.clone()).err().expect("it is taken");
        let expected = "pid/1 is attached already: by process 7 in /home/me, since 10:00:00 UTC";
        assert_eq!(second.to_string(), expected);
        let _other = listen_in(dir.path(), &holder("pid/2"), tx.clone()).expect("another target");
        assert_eq!(running_in(dir.path()).expect("listed").len(), 2);
        drop(first);
        assert_eq!(running_in(dir.path()).expect("listed").len(), 1);
        listen_in(dir.path(), &holder("pid/1"), tx).expect("free again");
    }

    #[tokio::test]
    async fn what_a_crash_left_behind_is_in_nobodys_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let name = name_of("pid/1");
        std::fs::write(dir.path().join(format!("{name}.lock")), "{}").expect("written");
        drop(UnixListener::bind(dir.path().join(format!("{name}.sock"))).expect("bound"));
        assert!(running_in(dir.path()).expect("listed").is_empty());
        let (tx, _rx) = desk();
        listen_in(dir.path(), &holder("pid/1"), tx).expect("a fresh one");
    }

    #[tokio::test]
    async fn questions_are_answered_through_the_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tx, mut rx) = desk();
        let holder = holder("pid/1");
        let _attached = listen_in(dir.path(), &holder, tx).expect("listens");
        let engine = tokio::spawn(async move {
            while let Some(command) = rx.recv().await {
                match command {
                    Command::Verify { then } => drop(then.send(Ok(Vec::new()))),
                    Command::Restart { then, .. } => {
                        let error = CommandError::new("no").cause("why").hint("how");
                        drop(then.send(Err(error)));
                    }
                    _ => {}
                }
            }
        });
        let status = ask_in(dir.path(), &holder, &Question::Status).await.expect("an answer");
        let Answer::Status { targets } = status else { panic!("{status:?}") };
        assert_eq!((targets.len(), &targets[0].state), (1, &State::Connecting));
        let verified = ask_in(dir.path(), &holder, &Question::Verify).await.expect("an answer");
        assert!(matches!(verified, Answer::Verified { differences } if differences.is_empty()));
        let restart = Question::Restart { mode: None, grace: None };
        let error = ask_in(dir.path(), &holder, &restart).await.expect_err("a failure");
        assert_eq!(
            (error.what(), error.causes(), error.get_hint()),
            ("no", vec!["why".to_owned()], Some("how"))
        );
        let bad = Question::Restart { mode: Some("sometimes".to_owned()), grace: None };
        assert!(ask_in(dir.path(), &holder, &bad).await.is_err());
        engine.abort();
    }
}
