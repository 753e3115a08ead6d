//! One stream of the app, from its pipe to where devsync-run's own stream goes, byte for byte, never blocking the loop.
//!
//! A reader that is slow slows the app down, as it would without a supervisor; one that went away loses the output, not the app.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::ring::Ring;
use crate::sys::descriptors::send_if_socket;
use crate::sys::launch::Target;

/// Above this nothing more is read from the app until the reader took some.
const PENDING: usize = 64 * 1024;
/// Above this the output of ended runs is dropped: a reader that took nothing for a whole mebibyte.
const PENDING_MAX: usize = 1024 * 1024;
/// A pipe that polls writable takes a page without blocking (pipe(7)); nothing promises more.
const PIECE: usize = 4096;

pub(crate) struct Stream {
    sink: File,
    /// The sink is a terminal: the app writes to it directly.
    pub(crate) direct: bool,
    from_app: Option<File>,
    pending: VecDeque<u8>,
    gone: bool,
}

impl Stream {
    /// `own` is devsync-run's own stdout or stderr.
    pub(crate) fn new(own: &(impl AsFd + IsTerminal)) -> io::Result<Self> {
        let sink = File::from(own.as_fd().try_clone_to_owned()?);
        Ok(Self { sink, direct: own.is_terminal(), from_app: None, pending: VecDeque::new(), gone: false })
    }

    /// What the next run of the app gets as this stream. Each run has a pipe of its own: a run that made its end non-blocking
    /// (node does) would make it so for the next one.
    pub(crate) fn for_app(&mut self) -> io::Result<Target> {
        if self.direct {
            return Ok(Target::Inherit);
        }
        let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        self.from_app = Some(File::from(read));
        Ok(Target::Pipe(write))
    }

    /// The app's end, while more may be taken from it.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        self.from_app.as_ref().filter(|_| self.pending.len() < PENDING).map(AsFd::as_fd)
    }

    /// The sink, while something waits for it.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        (!self.pending.is_empty()).then(|| self.sink.as_fd())
    }

    /// Takes one piece of what the app wrote, unless the sink has enough to do.
    pub(crate) fn take(&mut self, ring: &mut Ring) {
        if self.readable().is_some() {
            self.take_piece(ring);
        }
    }

    /// False when there is nothing now or never again.
    fn take_piece(&mut self, ring: &mut Ring) -> bool {
        let mut buffer = [0; 16 * 1024];
        let Some(pipe) = &mut self.from_app else { return false };
        match pipe.read(&mut buffer) {
            Ok(0) => self.from_app = None,
            Ok(n) => {
                ring.push(&buffer[..n]);
                self.queue(&buffer[..n]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.from_app = None,
        }
        false
    }

    /// Takes all that is left of a run whose processes are gone, and closes its pipe.
    pub(crate) fn finish(&mut self, ring: &mut Ring) {
        while self.take_piece(ring) {}
        self.from_app = None;
    }

    /// Queues bytes for the sink.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        if !self.gone && self.pending.len() < PENDING_MAX {
            self.pending.extend(bytes);
        }
    }

    /// Writes what the sink takes without blocking.
    pub(crate) fn pass_on(&mut self) {
        while !self.pending.is_empty() && self.sink_is_ready(Duration::ZERO) {
            let (front, _) = self.pending.as_slices();
            let piece = &front[..front.len().min(PIECE)];
            let written =
                send_if_socket(self.sink.as_raw_fd(), piece).unwrap_or_else(|| self.sink.write(piece));
            match written {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => self.lose(&error),
            }
        }
    }

    /// A closed reader will not come back; a full disk may.
    fn lose(&mut self, error: &io::Error) {
        self.pending.clear();
        self.gone = error.kind() != io::ErrorKind::StorageFull;
    }

    fn sink_is_ready(&self, wait: Duration) -> bool {
        let mut fds = [PollFd::new(self.sink.as_fd(), PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Writes all that waits; gives up when the reader takes nothing for `patience`.
    pub(crate) fn flush(&mut self, patience: Duration) {
        let mut left = self.pending.len();
        let mut until = Instant::now() + patience;
        while !self.pending.is_empty() {
            let now = Instant::now();
            if now >= until {
                return;
            }
            self.sink_is_ready(until - now);
            self.pass_on();
            if self.pending.len() < left {
                left = self.pending.len();
                until = Instant::now() + patience;
            }
        }
    }
}
