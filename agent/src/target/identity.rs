//! Which process it is: a pidfd, its start time and its mount namespace. A reused PID is never taken for it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::access::Access;
use super::error::TargetError;
use crate::sys::pidfd::PidFd;
use crate::sys::proc::{Namespace, ProcDir, ProcError};

/// A process that the agent found, for as long as it lives.
#[derive(Debug)]
pub struct Identity {
    pid: u32,
    pidfd: PidFd,
    proc: ProcDir,
    start_time: u64,
    mount_namespace: u64,
    access: Access,
}

impl Identity {
    /// Refuses kernel threads, zombies, threads that are no process, and processes whose root stays shut.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let pidfd = PidFd::open(pid).map_err(|errno| match errno {
            Errno::ESRCH => TargetError::Proc(ProcError::Vanished { pid }),
            Errno::EINVAL | Errno::ENOENT => TargetError::NoAccess {
                pid,
                cause: "it is a thread and no process".to_owned(),
                hint: "name the process that the thread belongs to".to_owned(),
            },
            errno => TargetError::Proc(ProcError::Read { pid, what: "a pidfd", errno }),
        })?;
        let proc = ProcDir::open(pid)?;
        let stat = proc.stat()?;
        // The directory was opened while the pidfd's process had the PID: both are the same process.
        if pidfd.has_exited().unwrap_or(true) || stat.is_zombie() {
            return Err(TargetError::Vanished { pid });
        }
        if stat.is_kernel_thread() {
            return Err(TargetError::NoAccess {
                pid,
                cause: "it is a thread of the kernel".to_owned(),
                hint: "name a process".to_owned(),
            });
        }
        let access = Access::find(&proc)?;
        let mount_namespace = access.inspect(|| proc.namespace(Namespace::Mount))?;
        Ok(Self { pid, pidfd, proc, start_time: stat.start_time, mount_namespace, access })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Clock ticks after boot.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The inode number of its mount namespace when it was found.
    pub fn mount_namespace(&self) -> u64 {
        self.mount_namespace
    }

    pub fn proc(&self) -> &ProcDir {
        &self.proc
    }

    pub fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    /// It lives, and is what was found: asked before anything is written or signalled.
    pub fn still_there(&self) -> Result<(), TargetError> {
        self.is_alive()?;
        let gone = TargetError::Vanished { pid: self.pid };
        let same = self.proc.stat()?.start_time == self.start_time
            && self.access.inspect(|| self.proc.namespace(Namespace::Mount))? == self.mount_namespace;
        if same { Ok(()) } else { Err(gone) }
    }

    /// The cheap part of `still_there`, one system call: the process has not ended.
    pub fn is_alive(&self) -> Result<(), TargetError> {
        match self.pidfd.has_exited() {
            Ok(false) => Ok(()),
            _ => Err(TargetError::Vanished { pid: self.pid }),
        }
    }

    /// Sends a signal to this very process; ESRCH (`Vanished`) when it is gone, whoever has its PID now.
    pub fn signal(&self, signal: i32) -> Result<(), TargetError> {
        self.pidfd.send_signal(signal).map_err(|errno| match errno {
            Errno::ESRCH => TargetError::Vanished { pid: self.pid },
            errno => ProcError::Read { pid: self.pid, what: "the right to signal", errno }.into(),
        })
    }
}

/// Readable from the moment the process ends.
impl AsFd for Identity {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
