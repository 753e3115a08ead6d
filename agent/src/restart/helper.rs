//! The tracer is this executable, run again: a process of its own, so that its death frees the app, and nothing of
//! the agent's (descriptors, threads, rights) is in it. This module starts it, bounds its time, and is its main.
//!
//! Both sides speak length-prefixed postcard: the spec on its standard input, answers on its standard output.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use devsync_protocol::restart::{AppState, Refusal, RefusalKind, RestartFailure};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::unistd::{Gid, Uid};

use super::reexec::{self, Answer, Done, Restart, Spec, Style, Task};
use crate::sys::pidfd::PidFd;
use crate::sys::proc_task;
use crate::sys::ptrace;

/// The arguments with which this executable is the helper.
pub const ARGUMENTS: [&str; 2] = ["helper", "reexec"];
/// Beyond the app's own grace: to seize, to execute, to end descendants.
const WORK_TIME: Duration = Duration::from_secs(30);
/// A probe does not wait for anything.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// What a helper that follows a dead one may still wait for the app.
const RESCUE_GRACE: Duration = Duration::from_secs(2);
/// Arguments and environment are at most a quarter of an 8 MiB stack.
const MAX_MESSAGE: usize = 16 << 20;
const CAP_SYS_PTRACE: u32 = 19;

/// How the helper is started.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Default for Launcher {
    /// This executable, even if it was replaced since.
    fn default() -> Self {
        Self::new("/proc/self/exe".into(), ARGUMENTS.map(OsString::from).to_vec())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum HelperError {
    #[error("cannot start the helper")]
    Start(#[source] io::Error),
    #[error("cannot talk to the helper")]
    Talk(#[source] io::Error),
    #[error("the helper did not finish in time and was ended")]
    Late,
    #[error("the helper ended without an answer: {0}")]
    Silent(std::process::ExitStatus),
}

/// What came of one helper.
struct Run {
    instance: Option<u64>,
    answer: Result<Answer, HelperError>,
}

impl Launcher {
    /// A program that ends up in `helper_main`.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// Says whether a process may be restarted in place, before anything is written to its root.
    pub fn permitted(&self, pid: i32, start_time: u64) -> Result<(), Refusal> {
        let spec = Spec { pid, start_time, task: Task::Probe };
        let unexplained = |cause: String| Refusal {
            kind: RefusalKind::Unexplained,
            cause,
            hint: "look at the agent's log; restart mode supervise does not need it".into(),
        };
        match self.start(&spec, PROBE_TIME).answer {
            Ok(Answer::Permitted) => Ok(()),
            Ok(Answer::Refused(refusal)) => Err(refusal),
            Ok(other) => Err(unexplained(format!("the helper answered a probe with {other:?}"))),
            Err(error) => Err(unexplained(chain(&error))),
        }
    }

    /// Restarts a process in place. A helper that dies is followed by another one, once.
    pub fn restart(&self, pid: i32, start_time: u64, mut restart: Restart) -> Result<Done, RestartFailure> {
        restart.style = restart.style.capped();
        let was_stopped = is_stopped(pid);
        let time = restart.style.grace() + WORK_TIME;
        let mut spec = Spec { pid, start_time, task: Task::Restart(Box::new(restart.clone())) };
        let mut run = self.start(&spec, time);
        if matches!(run.answer, Err(HelperError::Silent(_) | HelperError::Late)) && run.instance.is_some() {
            let style = match restart.style {
                Style::Forced => Style::Forced,
                _ => Style::Resume { grace: RESCUE_GRACE.min(restart.style.grace()) },
            };
            let restart = Restart { style, instance: run.instance, ..restart.clone() };
            spec.task = Task::Restart(Box::new(restart));
            run = self.start(&spec, time);
        }
        if !was_stopped && is_stopped(pid) && proc_task::start_time(pid).ok() == Some(start_time) {
            PidFd::wake(pid);
        }
        match run.answer {
            Ok(Answer::Done(done)) => Ok(done),
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(other) => {
                Err(failed(&spec, &restart, format!("the helper answered with {other:?}"), AppState::Unknown))
            }
            Err(error) => {
                let state = if run.instance.is_some() { AppState::Unknown } else { AppState::Untouched };
                Err(failed(&spec, &restart, chain(&error), state))
            }
        }
    }

    fn start(&self, spec: &Spec, time: Duration) -> Run {
        let mut run = Run { instance: None, answer: Err(HelperError::Late) };
        let deadline = Instant::now() + time;
        run.answer = self.spawn().map_err(HelperError::Start).and_then(|mut child| {
            let answer = converse(&mut child, spec, deadline, &mut run.instance);
            // Ended either way: a helper that lives holds the app.
            let _ = child.kill();
            let status = child.wait().map_err(HelperError::Talk)?;
            answer.and_then(|answer| answer.ok_or(HelperError::Silent(status)))
        });
        run
    }

    fn spawn(&self) -> io::Result<Child> {
        // A group of its own: what a terminal sends to the agent's must not end it halfway.
        Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
    }
}

/// [`Launcher::permitted`] with this executable.
pub fn permitted(pid: i32, start_time: u64) -> Result<(), Refusal> {
    Launcher::default().permitted(pid, start_time)
}

fn is_stopped(pid: i32) -> bool {
    proc_task::status(pid).is_ok_and(|status| status.state == 'T')
}

fn failed(spec: &Spec, restart: &Restart, cause: String, app: AppState) -> RestartFailure {
    RestartFailure {
        what: format!("re-exec of {} in process {}", restart.recorded.exe.display(), spec.pid),
        cause,
        hint: "look at the agent's log, and try again".into(),
        app,
    }
}

fn chain(error: &HelperError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Gives the helper its work and reads until its answer; `None` if it ended before.
fn converse(
    child: &mut Child,
    spec: &Spec,
    deadline: Instant,
    instance: &mut Option<u64>,
) -> Result<Option<Answer>, HelperError> {
    let missing = || HelperError::Talk(io::ErrorKind::BrokenPipe.into());
    let mut input = child.stdin.take().ok_or_else(missing)?;
    let mut output = child.stdout.take().ok_or_else(missing)?;
    let spec = encode(spec).map_err(HelperError::Talk)?;
    if input.write_all(&spec).is_err() {
        return Ok(None);
    }
    drop(input);
    let mut received = Vec::new();
    loop {
        while let Some(answer) = decode(&mut received).map_err(HelperError::Talk)? {
            match answer {
                Answer::Begun { instance: begun } => *instance = Some(begun),
                other => return Ok(Some(other)),
            }
        }
        if !wait_readable(&output, deadline).map_err(HelperError::Talk)? {
            return Err(HelperError::Late);
        }
        let mut chunk = [0; 4096];
        match output.read(&mut chunk).map_err(HelperError::Talk)? {
            0 => return Ok(None),
            n => received.extend_from_slice(&chunk[..n]),
        }
    }
}

fn wait_readable(source: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn encode<T: serde::Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Takes one message from the front, if it is there as a whole.
fn decode<T: serde::de::DeserializeOwned>(received: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some((length, body)) = received.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let Some(body) = body.get(..length) else { return Ok(None) };
    let message = postcard::from_bytes(body).map_err(io::Error::other)?;
    received.drain(..4 + length);
    Ok(Some(message))
}

/// The helper's main: one spec in, one answer out.
pub fn helper_main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("devsync-agent helper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> io::Result<()> {
    // Nobody with the app's ids may look into this process. Where it is refused the helper works all the same.
    let _ = nix::sys::prctl::set_dumpable(false);
    // Not there before Linux 5.9; the agent's descriptors are closed by exec anyway.
    let _ = ptrace::close_inherited();
    let mut input = Vec::new();
    io::stdin().lock().take(MAX_MESSAGE as u64 + 4).read_to_end(&mut input)?;
    let spec: Spec = decode(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    take_ids(spec.pid)?;
    // Another uid makes it what fs.suid_dumpable says, which may be dumpable.
    let _ = nix::sys::prctl::set_dumpable(false);
    say(&match spec.task {
        Task::Probe => match reexec::probe(spec.pid, spec.start_time) {
            Ok(()) => Answer::Permitted,
            Err(refusal) => Answer::Refused(refusal),
        },
        Task::Restart(restart) => {
            // The agent learns less without it, and that is all.
            let begun = |instance| drop(say(&Answer::Begun { instance }));
            match reexec::restart(spec.pid, spec.start_time, &restart, begun) {
                Ok(done) => Answer::Done(done),
                Err(failure) => Answer::Failed(failure),
            }
        }
    })
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(&encode(answer)?)?;
    output.flush()
}

/// Takes the app's ids, which is what ptrace asks for; root without SYS_PTRACE is not enough. An app with several
/// ids at once is left to the explanation of the refusal, as one that is gone is to the checks.
fn take_ids(pid: i32) -> io::Result<()> {
    let Ok(app) = proc_task::status(pid) else { return Ok(()) };
    let own = proc_task::own_status()?;
    let (uid, gid) = (app.uids[0], app.gids[0]);
    let uniform = app.uids[..3] == [uid; 3] && app.gids[..3] == [gid; 3];
    let same = own.uids[0] == uid && own.gids[0] == gid;
    let may_trace = own.cap_effective.0 >> CAP_SYS_PTRACE & 1 == 1;
    if own.uids[1] != 0 || !uniform || same || may_trace {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // Refused without SETUID and SETGID; the attempt to trace then tells what is missing.
    let taken = nix::unistd::setgroups(&[])
        .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
        .and_then(|()| nix::unistd::setresuid(uid, uid, uid));
    match taken {
        Ok(()) | Err(nix::Error::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        let spec = Spec { pid: 7, start_time: 9, task: Task::Probe };
        let bytes = encode(&spec).expect("encodes");
        for length in 0..bytes.len() {
            let mut part = bytes[..length].to_vec();
            assert!(decode::<Spec>(&mut part).expect("waits for more").is_none(), "{length}");
        }
        let mut twice = [bytes.clone(), bytes].concat();
        assert_eq!(decode::<Spec>(&mut twice).expect("decodes"), Some(spec.clone()));
        assert_eq!(decode::<Spec>(&mut twice).expect("decodes"), Some(spec));
        assert!(twice.is_empty());
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_awaited() {
        assert!(decode::<Spec>(&mut u32::MAX.to_le_bytes().to_vec()).is_err());
    }
}
