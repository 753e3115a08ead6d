//! The vigil: a thread that sleeps until the app's process (or its supervisor) ends, and tells the client.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use devsync_protocol::message::Reply;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::wire::Outbox;
use crate::restart::supervise::Supervisor;
use crate::supervisor::wire::State;
use crate::target::identity::Identity;

/// How often, and with which pauses, the supervisor is asked for the cause of an end.
const LOOKS: usize = 100;
const PAUSE_MS: u8 = 20;

pub(super) struct Vigil {
    /// Closing it wakes the thread.
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Vigil {
    /// Watches `app`. Under a supervisor a crash is told with its last output; else its end is the target's.
    pub(super) fn start(
        app: Arc<Identity>,
        supervisor: Option<Supervisor>,
        outbox: Outbox,
    ) -> io::Result<Self> {
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let thread = std::thread::Builder::new().name("vigil".into()).spawn(move || {
            if wait(&app, &stopped) {
                // Where the client is gone too, the session's own thread sees it.
                if let Some(words) = last_words(&app, supervisor.as_ref(), &stopped) {
                    let _ = outbox.send(&words);
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    pub(super) fn end(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the vigil panicked");
        }
    }
}

/// `None` where the vigil was over before anything could be said.
fn last_words(app: &Identity, supervisor: Option<&Supervisor>, stopped: &OwnedFd) -> Option<Reply> {
    let reason = format!("process {} ended", app.pid());
    let Some(supervisor) = supervisor else { return Some(Reply::Gone { reason }) };
    for _ in 0..LOOKS {
        match supervisor.status().map(|status| status.state) {
            Ok(State::Held(held) | State::Waiting { held, .. }) => {
                let cause = format!("{reason}: {}", held.cause);
                return Some(Reply::Crashed { cause, output: held.output });
            }
            Err(_) => return Some(Reply::Gone { reason: format!("{reason}, and its devsync-run too") }),
            // It has not noticed yet, or ends what is left of the app.
            Ok(_) if is_stopped(stopped) => return None,
            Ok(_) => {}
        }
    }
    Some(Reply::Crashed { cause: reason, output: Vec::new() })
}

/// Waits a moment for the vigil to be over.
fn is_stopped(stopped: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(PAUSE_MS)).is_ok_and(|ready| ready > 0)
}

/// True once the process ended; false when the vigil is over.
fn wait(watched: &Identity, stopped: &OwnedFd) -> bool {
    loop {
        let mut fds = [
            PollFd::new(watched.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[1].any().unwrap_or(true) => return false,
            Ok(_) if fds[0].any().unwrap_or(false) => return true,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
