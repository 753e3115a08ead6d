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
                let _ = outbox.send(&last_words(&app, supervisor.as_ref()));
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

fn last_words(app: &Identity, supervisor: Option<&Supervisor>) -> Reply {
    let reason = format!("process {} ended", app.pid());
    let Some(supervisor) = supervisor else { return Reply::Gone { reason } };
    match supervisor.status().map(|status| status.state) {
        Ok(State::Held(held) | State::Waiting { held, .. }) => {
            let cause = format!("{reason}: {}", held.cause);
            Reply::Crashed { cause, output: held.output }
        }
        Ok(_) => Reply::Crashed { cause: reason, output: Vec::new() },
        Err(_) => Reply::Gone { reason: format!("{reason}, and its devsync-run too") },
    }
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
