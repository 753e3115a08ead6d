//! Two processes prove to each other that they are of one container: of one user, and of one mount namespace.
//!
//! The app shares the agent's PID and network namespaces, may have its uid, and may be able to reach the socket or to
//! put one of its own in its place. What it cannot do is be in the agent's mount namespace: that takes setns with
//! CAP_SYS_ADMIN, or tracing a process that is there, and those are not dumpable. So the mount namespace is what is
//! proved, and by both ends: a caller that told an impostor nothing would still believe the host key that it answers.
//!
//! - A name on the socket proves nothing, and nor does a secret or a descriptor that is handed over: who gets it from
//!   one end can hand it on to the other. Instead the kernel names the sender of each message (SCM_CREDENTIALS), which
//!   nobody can pass on. Only a process with CAP_SYS_ADMIN over its PID namespace may name another pid, and of a
//!   namespace that it made itself only pids in there, none of which is in our mount namespace.
//! - A pid may be another process by the time it is looked at: the app could connect, speak, end, and fork until the
//!   next `authorize` gets its pid. So the pid is held by a pidfd first; only then a number is sent that nobody can
//!   guess, and it must come back from the same pid while the pidfd's process still lives. Whoever sent that message
//!   is the process that is looked at.
//! - That process is not dumpable, so its `ns/mnt` is closed to us where we have no capability (and ours to it).
//!   `mountinfo` is open to everybody: a mount's number is the kernel's, belongs to one mount at a time, and a mount to
//!   one namespace. Ours at `/` lives as long as we do, so a process with that mount at its `/` is in our namespace.
//! - Where `/proc` hides other processes (hidepid), or the root is no mount point, nothing can be proved, and the
//!   answer is no.

use std::io;
use std::time::Instant;

use nix::errno::Errno;
use nix::unistd::geteuid;
use thiserror::Error;

use crate::sys::packets::Packets;
use crate::sys::pidfd::PidFd;
use crate::sys::proc::{ProcDir, ProcError};
use crate::sys::random;

/// What both ends say first; it changes with what follows.
const HELLO: &[u8] = b"devsync-authorize 1";
const NUMBER: usize = 32;
const LONGEST: usize = 64;

#[derive(Debug, Error)]
pub enum ProofError {
    #[error("the other end does not answer")]
    Io(#[from] io::Error),
    #[error("the other end does not speak as devsync-agent does")]
    Strange,
    #[error("process {pid} has uid {theirs}, and not this agent's {ours}")]
    Uid { pid: i32, ours: u32, theirs: u32 },
    #[error("process {pid} is not of the agent's container (its mount namespace is another)")]
    Elsewhere { pid: i32 },
    #[error("the other end is process {then} and then {now}")]
    Changed { then: i32, now: i32 },
    #[error("process {pid} has ended")]
    Ended { pid: i32 },
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error("the kernel gave {0}")]
    Kernel(#[from] Errno),
}

/// A process of our own container at the other end.
pub(super) struct Proven {
    packets: Packets,
    pid: i32,
}

impl Proven {
    /// Both ends run this; it returns when both have proved themselves.
    pub(super) fn new(packets: Packets, deadline: Instant) -> Result<Self, ProofError> {
        let mut buffer = [0; LONGEST];
        packets.send(HELLO, deadline)?;
        let (hello, sender) = packets.receive(&mut buffer, deadline)?;
        if hello != HELLO {
            return Err(ProofError::Strange);
        }
        let ours = geteuid().as_raw();
        if sender.uid != ours {
            return Err(ProofError::Uid { pid: sender.pid, ours, theirs: sender.uid });
        }
        let peer = Held::open(sender.pid)?;
        // From here on, and not before, somebody can know the number.
        let number = random::bytes32()?;
        packets.send(&number, deadline)?;
        let proven = Self { packets, pid: sender.pid };
        let theirs: [u8; NUMBER] =
            proven.receive(&mut buffer, deadline)?.try_into().map_err(|_| ProofError::Strange)?;
        proven.send(&theirs, deadline)?;
        if proven.receive(&mut buffer, deadline)? != number {
            return Err(ProofError::Strange);
        }
        peer.is_of_our_container()?;
        Ok(proven)
    }

    pub(super) fn send(&self, message: &[u8], deadline: Instant) -> Result<(), ProofError> {
        Ok(self.packets.send(message, deadline)?)
    }

    /// The next message, from that very process.
    pub(super) fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        deadline: Instant,
    ) -> Result<&'b [u8], ProofError> {
        let (message, sender) = self.packets.receive(buffer, deadline)?;
        if sender.pid == self.pid {
            Ok(message)
        } else {
            Err(ProofError::Changed { then: self.pid, now: sender.pid })
        }
    }
}

/// A quick look, before a caller costs anything: it keeps out whom the proof would keep out, but for one who is quick
/// enough to be confused with another.
pub(super) fn could_be_ours(packets: &Packets) -> bool {
    packets.peer().is_ok_and(|peer| {
        peer.uid == geteuid().as_raw() && Held::open(peer.pid).is_ok_and(|p| p.is_of_our_container().is_ok())
    })
}

/// A process that is looked at.
struct Held {
    pid: i32,
    pidfd: PidFd,
    proc: ProcDir,
}

impl Held {
    fn open(pid: i32) -> Result<Self, ProofError> {
        let number = u32::try_from(pid).map_err(|_| ProofError::Strange)?;
        let pidfd = PidFd::open(number)?;
        Ok(Self { pid, pidfd, proc: ProcDir::open(number)? })
    }

    /// It has our mount at its root, and was alive when that was read: so it was the pidfd's process that was read.
    fn is_of_our_container(&self) -> Result<(), ProofError> {
        let (ours, theirs) = (ProcDir::own()?.root_mounts()?, self.proc.root_mounts()?);
        if self.pidfd.has_exited()? {
            return Err(ProofError::Ended { pid: self.pid });
        }
        if ours.is_empty() || ours != theirs { Err(ProofError::Elsewhere { pid: self.pid }) } else { Ok(()) }
    }
}
