//! Unix sockets that keep messages apart (SOCK_SEQPACKET), named below a directory's descriptor, whose every message
//! comes with its sender as the kernel vouches for it.

use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    bind as bind_fd, connect as connect_fd, listen, recvmsg, send, setsockopt, socket,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::abstract_socket::{self, Peer};
use super::proc::by_descriptor;

/// Callers that may wait to be accepted.
const BACKLOG: i32 = 16;

#[derive(Debug)]
pub struct Listener(UnixListener);

/// One end of a connection.
#[derive(Debug)]
pub struct Packets(UnixStream);

impl Listener {
    /// Binds `name` in `dir`, with mode 0600 before anybody can connect; a socket (or anything else) of that name is
    /// removed. Non-blocking.
    pub fn bind(dir: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let fd = make()?;
        bind_fd(fd.as_raw_fd(), &address(dir, name)?)?;
        fchmodat(dir, name, Mode::from_bits_truncate(0o600), FchmodatFlags::FollowSymlink)?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(Self(UnixListener::from(fd)))
    }

    /// The socket itself, for whoever waits for callers; `Packets::accepted` takes them.
    pub fn into_socket(self) -> UnixListener {
        self.0
    }
}

impl Packets {
    /// `NotFound` or `ConnectionRefused` where nobody listens, `WouldBlock` where too many wait already.
    pub fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let fd = make()?;
        connect_fd(fd.as_raw_fd(), &address(dir, name)?)?;
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    /// A caller that the listener accepted.
    pub fn accepted(stream: UnixStream) -> io::Result<Self> {
        setsockopt(&stream, PassCred, &true)?;
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    /// Who connected, or listened: of the past, and a pid of it may be another's by now.
    pub fn peer(&self) -> io::Result<Peer> {
        abstract_socket::peer(&self.0)
    }

    /// Sends one message; `TimedOut` after `deadline`.
    pub fn send(&self, message: &[u8], deadline: Instant) -> io::Result<()> {
        self.0.set_write_timeout(Some(left(deadline)?))?;
        let sent = send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map_err(timed_out)?;
        if sent == message.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Receives one message and who sent it; `UnexpectedEof` when the other end closed, `InvalidData` for a message
    /// longer than `buffer`, one with descriptors, or one whose sender is not seen in this PID namespace.
    pub fn receive<'b>(&self, buffer: &'b mut [u8], deadline: Instant) -> io::Result<(&'b [u8], Peer)> {
        self.0.set_read_timeout(Some(left(deadline)?))?;
        let mut space = nix::cmsg_space!(UnixCredentials);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let message = message.map_err(timed_out)?;
        let sender = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(who) => {
                Some(Peer { pid: who.pid(), uid: who.uid(), gid: who.gid() })
            }
            _ => None,
        });
        let (length, flags) = (message.bytes, message.flags);
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match sender {
            Some(sender)
                if sender.pid > 0 && !flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) =>
            {
                Ok((buffer.get(..length).unwrap_or_default(), sender))
            }
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Non-blocking. Both ends ask for credentials before the first message can come.
fn make() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    setsockopt(&fd, PassCred, &true)?;
    Ok(fd)
}

/// A path of any length would not fit (unix(7): 108 bytes); this one always does.
fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<UnixAddr> {
    Ok(UnixAddr::new(format!("{}/{name}", by_descriptor(&dir)).as_str())?)
}

fn left(deadline: Instant) -> io::Result<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The kernel says EAGAIN when a socket's time is over.
fn timed_out(errno: nix::errno::Errno) -> io::Error {
    match errno {
        nix::errno::Errno::EAGAIN => ErrorKind::TimedOut.into(),
        errno => errno.into(),
    }
}
