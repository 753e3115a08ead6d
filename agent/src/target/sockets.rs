//! Unix sockets of the app: connected to and made through descriptors, as files are; no path of the app reaches the
//! kernel by name.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::error::TargetError;
use super::metadata::{Kind, Metadata};
use super::parent::Parent;
use super::path;
use super::root::TargetRoot;
use crate::sys::proc;

/// The name of a socket that was made; it goes when it is told to, and only if it still is that socket.
#[derive(Debug)]
pub struct UnixName {
    directory: Parent,
    leaf: Vec<u8>,
    made: Metadata,
}

impl TargetRoot {
    /// Connects to a socket as the app would; links are followed within the root. Non-blocking, as tokio wants it.
    pub fn connect_unix(&self, name: &[u8], patience: Duration) -> Result<UnixStream, TargetError> {
        let entry = self.sync_root(b"/")?.followed(&path::in_root(name)?)?;
        let operation = "connect to";
        let call = |errno| TargetError::Call { operation, path: name.into(), errno };
        if entry.metadata().kind != Kind::Socket {
            let kind = entry.metadata().kind;
            return Err(TargetError::WrongKind { operation, path: name.into(), kind });
        }
        let address = UnixAddr::new(proc::by_descriptor(&entry).as_str()).map_err(call)?;
        let stream = self.identity().access().run(|_| {
            let stream = new_socket()?;
            // A listener whose queue is full would hold us as long as it likes.
            let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
            setsockopt(&stream, sockopt::SendTimeout, &patience)?;
            connect(stream.as_raw_fd(), &address)?;
            setsockopt(&stream, sockopt::SendTimeout, &TimeVal::zero())?;
            Ok(stream)
        });
        let stream = UnixStream::from(stream.map_err(call)?);
        stream.set_nonblocking(true).map_err(|error| call(errno(&error)))?;
        Ok(stream)
    }

    /// Makes a socket under this name and listens on it; EADDRINUSE where there is anything.
    pub fn bind_unix(&self, name: &[u8]) -> Result<(UnixListener, UnixName), TargetError> {
        let plain = path::in_root(name)?;
        let root = self.sync_root(b"/")?;
        let (directory, leaf) = root.parent(&plain)?;
        let call = |errno| TargetError::Call { operation: "listen on", path: name.into(), errno };
        // Through the directory's descriptor: the name itself cannot be a link, since bind follows none.
        let by_name = [proc::by_descriptor(&directory).as_bytes(), b"/", leaf].concat();
        let address = UnixAddr::new(by_name.as_slice()).map_err(call)?;
        let listener = self.identity().access().run(|_| {
            let listener = new_socket()?;
            bind(listener.as_raw_fd(), &address)?;
            listen(&listener, Backlog::new(64)?)?;
            Ok(listener)
        });
        let listener = UnixListener::from(listener.map_err(call)?);
        listener.set_nonblocking(true).map_err(|error| call(errno(&error)))?;
        let made = directory.metadata(leaf)?;
        Ok((listener, UnixName { leaf: leaf.to_vec(), made, directory }))
    }
}

impl UnixName {
    pub fn remove(self) -> Result<(), TargetError> {
        let now = self.directory.metadata(&self.leaf)?;
        if (now.device, now.inode, now.kind) == (self.made.device, self.made.inode, Kind::Socket) {
            self.directory.unlink(&self.leaf)?;
        }
        Ok(())
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
