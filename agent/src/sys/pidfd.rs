//! A descriptor of a process: its end can be polled, and a signal through it never meets another process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Has a stopped process go on; one that is gone has nothing to be woken.
    pub fn wake(pid: i32) {
        if let Ok(pidfd) = Self::open(pid.cast_unsigned()) {
            let _ = pidfd.send_signal(libc::SIGCONT);
        }
    }

    /// ESRCH when there is no such process, EINVAL when `pid` is a thread and no process.
    pub fn open(pid: u32) -> Result<Self, Errno> {
        // SAFETY: pidfd_open(2) takes two integers and touches no memory of ours.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the end of the process; false when the time is over first.
    pub fn wait_exit(&self, timeout: PollTimeout) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, timeout)? > 0)
    }

    /// True from the moment it is a zombie.
    pub fn has_exited(&self) -> Result<bool, Errno> {
        self.wait_exit(PollTimeout::ZERO)
    }

    /// Signal 0 only asks whether it may be sent.
    pub fn send_signal(&self, signal: i32) -> Result<(), Errno> {
        // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)); the descriptor is open.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(sent).map(drop)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}
