//! The agent's side: finds out what the app has, starts the helper with it, and waits until it has executed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use nix::unistd::Pid;
use thiserror::Error;

use super::helper::ARGUMENTS;
use super::plan::{Plan, Refusal, Task};
use super::toolbox;
use crate::sys::proc::USUAL_UMASK;
use crate::sys::{descriptors, inherit, mountpoint};
use crate::target::error::TargetError;
use crate::world::World;

/// From the start of the helper to its execve.
const LONGEST_START: Duration = Duration::from_secs(10);
/// Of what a helper says about itself.
const LONGEST_WORDS: u64 = 4096;

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error("the app cannot be looked at")]
    Target(#[from] TargetError),
    #[error("cannot start the helper")]
    Start(#[source] io::Error),
    /// The helper's own words, here and below.
    #[error("{0}")]
    Helper(String),
    /// The right to enter the app's root is missing.
    #[error("{0}")]
    Root(String),
    /// There is no such program.
    #[error("{0}")]
    Missing(String),
    #[error("the program was not started within {} s", LONGEST_START.as_secs())]
    Late,
}

/// What is to be run.
#[derive(Debug)]
pub struct Request {
    pub task: Task,
    /// `NAME=value` each, put before the app's own.
    pub environment: Vec<Vec<u8>>,
}

/// Where the program's streams go; one terminal, or three.
#[derive(Debug)]
pub struct Streams {
    pub input: OwnedFd,
    pub output: OwnedFd,
    pub error: OwnedFd,
    pub terminal: bool,
}

/// A program that runs, first of a session and a group of its own.
#[derive(Debug)]
pub struct Launched {
    pub child: Child,
}

impl Launched {
    /// Its group.
    pub fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

/// True where the agent has not the right to enter the app's root, found out by trying; blocking. Any other failure is
/// for who starts a program to tell.
pub fn cannot_enter(world: &World) -> bool {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let (Ok(input), Ok(output), Ok(error)) = (null(), null(), null()) else { return false };
    let streams = Streams { input, output, error, terminal: false };
    match launch(world, &Request { task: Task::Look, environment: Vec::new() }, streams) {
        Ok(mut looked) => {
            let _ = looked.child.wait();
            false
        }
        Err(error) => matches!(error, LaunchError::Root(_)),
    }
}

/// Starts it; blocking, for [`LONGEST_START`] at most.
pub fn launch(world: &World, request: &Request, streams: Streams) -> Result<Launched, LaunchError> {
    let plan = plan(world, request, streams.terminal)?;
    let (talk, theirs) = UnixStream::pair().map_err(LaunchError::Start)?;
    let root = world.root().as_fd().try_clone_to_owned().map_err(LaunchError::Start)?;
    // This executable, even if it was replaced since; nothing of the agent's environment.
    let mut command = Command::new("/proc/self/exe");
    command.args(ARGUMENTS).env_clear();
    command.stdin(streams.input).stdout(streams.output).stderr(streams.error);
    let passed = [Some(OwnedFd::from(theirs)), Some(root), toolbox::directory()];
    inherit::pass(&mut command, passed.into_iter().flatten().collect());
    let mut child = command.spawn().map_err(LaunchError::Start)?;
    // Its copies of the descriptors: the helper's end must be the only one, or its execve would not be seen.
    drop(command);
    match converse(talk, &plan) {
        Ok(()) => Ok(Launched { child }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Gives the helper its plan, and reads until it has executed.
fn converse(mut talk: UnixStream, plan: &Plan) -> Result<(), LaunchError> {
    talk.set_read_timeout(Some(LONGEST_START)).map_err(LaunchError::Start)?;
    talk.set_write_timeout(Some(LONGEST_START)).map_err(LaunchError::Start)?;
    let bytes = postcard::to_stdvec(plan).map_err(|error| LaunchError::Start(io::Error::other(error)))?;
    // A helper that has ended already says why.
    let _ = talk.write_all(&bytes).and_then(|()| talk.shutdown(std::net::Shutdown::Write));
    let mut words = Vec::new();
    match talk.take(LONGEST_WORDS).read_to_end(&mut words) {
        Ok(_) => match words.split_first() {
            None => Ok(()),
            Some((first, words)) => {
                let words = String::from_utf8_lossy(words).into_owned();
                Err(match Refusal::of_byte(*first) {
                    Refusal::Root => LaunchError::Root(words),
                    Refusal::Missing => LaunchError::Missing(words),
                    Refusal::Other => LaunchError::Helper(words),
                })
            }
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(LaunchError::Late)
        }
        Err(error) => Err(LaunchError::Start(error)),
    }
}

fn plan(world: &World, request: &Request, terminal: bool) -> Result<Plan, LaunchError> {
    let app = world.app();
    app.still_there()?;
    let status = app.proc().status().map_err(TargetError::from)?;
    let own = app.access().inspect(|| app.proc().environ()).unwrap_or_default();
    let name = |entry: &[u8]| entry.split(|b| *b == b'=').next().map(<[u8]>::to_vec);
    let wishes = request.environment.clone();
    let taken: Vec<_> = wishes.iter().map(|entry| name(entry)).collect();
    let kept = |entry: &Vec<u8>| entry.contains(&b'=') && !taken.contains(&name(entry));
    Ok(Plan {
        task: request.task.clone(),
        root: world.root().identity().proc().root_path().into_bytes(),
        environment: own.into_iter().filter(kept).collect(),
        wishes,
        directory: world.home(),
        uid: status.uids[1],
        gid: status.gids[1],
        groups: status.groups,
        umask: status.umask.unwrap_or(USUAL_UMASK),
        permitted: status.cap_permitted.0,
        bounding: status.cap_bounding.0,
        no_new_privileges: status.no_new_privs,
        terminal,
        other_root: !mountpoint::is_own_root(world.root().as_fd()),
        open_files: descriptors::limit_at_start(),
    })
}
