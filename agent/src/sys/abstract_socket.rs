//! Unix stream sockets with abstract names: bind, connect without blocking, list, and who is on the other end.
//! An abstract name belongs to the network namespace, which the containers of a pod share; it needs no file and vanishes with its owner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_fd, getsockopt, socket,
};

/// Credentials of a peer as the kernel recorded them: of the connecting process at connect(2), of the listening one at listen(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In the caller's PID namespace; 0 when the peer is not visible there.
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Binds `name` and listens, non-blocking and close-on-exec. `AddrInUse` when somebody has it.
pub fn bind(name: &[u8]) -> io::Result<UnixListener> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to `name`; a full backlog is `WouldBlock` instead of a wait. The stream is blocking afterwards.
pub fn connect(name: &[u8]) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_fd(fd.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Reads SO_PEERCRED.
pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let found = getsockopt(socket, PeerCredentials)?;
    Ok(Peer { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// Names of listening abstract stream sockets in this network namespace that begin with `prefix`, at most `limit`.
pub fn listening(prefix: &str, limit: usize) -> io::Result<Vec<Vec<u8>>> {
    let table = std::fs::read("/proc/self/net/unix")?;
    Ok(parse_listening(&table, prefix, limit))
}

/// Columns: Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is SO_ACCEPTCON, and `@` stands for the leading NUL.
fn parse_listening(table: &[u8], prefix: &str, limit: usize) -> Vec<Vec<u8>> {
    let listens = |line: &&[u8]| {
        line.split(|b| *b == b' ')
            .filter(|field| !field.is_empty())
            .nth(3)
            .is_some_and(|flags| flags == b"00010000")
    };
    let name = |line: &[u8]| {
        let at = line.windows(2).position(|pair| pair == b" @")?;
        let name = &line[at + 2..];
        name.starts_with(prefix.as_bytes()).then(|| name.to_vec())
    };
    let mut names: Vec<_> =
        table.split(|b| *b == b'\n').filter(listens).filter_map(name).take(limit).collect();
    names.dedup();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_with_the_prefix_are_listed() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16000 @devsync-run.7\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 16001 @devsync-run.7\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16002 /run/devsync-run.8\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 16003 @other\n";
        assert_eq!(parse_listening(table, "devsync-run.", 9), [b"devsync-run.7".to_vec()]);
        assert!(parse_listening(table, "devsync-run.", 0).is_empty());
    }

    #[test]
    fn both_ends_see_this_process() {
        let name = format!("devsync-test.{}", std::process::id());
        let listener = bind(name.as_bytes()).unwrap();
        assert_eq!(bind(name.as_bytes()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let stream = connect(name.as_bytes()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(peer(&stream).unwrap().pid, std::process::id() as i32);
        assert_eq!(peer(&accepted).unwrap(), peer(&stream).unwrap());
        assert!(listening(&name, 4).unwrap().contains(&name.into_bytes()));
    }
}
