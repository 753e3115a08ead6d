//! The controlling terminal: who is in its foreground, and what a stopped app means for the shell that devsync-run runs in.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::unistd::{Pid, getpgid, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};

use crate::sys::signals;

pub(crate) struct Terminal(OwnedFd);

impl Terminal {
    /// The controlling terminal, if a standard stream is it.
    pub(crate) fn find() -> Option<Self> {
        fn usable(stream: &(impl AsFd + IsTerminal)) -> Option<OwnedFd> {
            let fd = stream.as_fd();
            (stream.is_terminal() && tcgetpgrp(fd).is_ok()).then(|| fd.try_clone_to_owned().ok()).flatten()
        }
        usable(&io::stdin()).or_else(|| usable(&io::stdout())).or_else(|| usable(&io::stderr())).map(Self)
    }

    /// The descriptor through which the next app shall take the foreground; none while a shell runs devsync-run in the background.
    pub(crate) fn for_app(&self) -> Option<RawFd> {
        self.is_foreground(getpgrp()).then(|| self.0.as_raw_fd())
    }

    fn is_foreground(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0) == Ok(group)
    }

    /// Hands the foreground to the app's group if devsync-run has it: after `fg`.
    pub(crate) fn give(&self, group: i32) {
        if self.is_foreground(getpgrp()) {
            // A terminal that hung up has no foreground to give.
            let _ = tcsetpgrp(&self.0, Pid::from_raw(group));
        }
    }

    /// Takes the foreground back from an app that ended, so that Ctrl-C reaches devsync-run while it holds.
    pub(crate) fn take_back(&self, group: i32) {
        if self.is_foreground(Pid::from_raw(group)) {
            // SIGTTOU is blocked here as every signal is; a terminal that hung up needs nothing.
            let _ = tcsetpgrp(&self.0, getpgrp());
        }
    }

    /// The app stopped (Ctrl-Z): stops devsync-run's own group too, so that the shell takes over; returns after its SIGCONT.
    ///
    /// Where no shell could continue it (an orphaned group: a container's main process), the app is continued at once, as the
    /// kernel would have done by not stopping it.
    pub(crate) fn suspend_with(&self, group: i32) {
        let stopped = has_job_control() && signals::send_group(getpgrp().as_raw(), libc::SIGSTOP).is_ok();
        if !stopped {
            // The group may have ended meanwhile, which its SIGCHLD tells.
            let _ = signals::send_group(group, libc::SIGCONT);
        }
    }
}

/// Whether the parent is of this session but of another group, as a shell with job control is.
fn has_job_control() -> bool {
    let parent = getppid();
    parent.as_raw() > 0
        && getsid(Some(parent)).is_ok_and(|sid| getsid(None) == Ok(sid))
        && getpgid(Some(parent)).is_ok_and(|group| group != getpgrp())
}
