//! How a request ended, in the words of SFTP version 3.

use std::io;

use nix::errno::Errno;
use tokio_util::bytes::Bytes;

use super::wire::{Packet, STATUS, Short};
use crate::target::error::TargetError;

const OK: u32 = 0;
const END: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const UNSUPPORTED: u32 = 8;

/// Why a request has no other answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// Of a file or a directory.
    End,
    Target(TargetError),
    Io(io::Error),
    Failure(&'static str),
    BadMessage,
    Unsupported,
}

impl From<TargetError> for Refused {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Short> for Refused {
    fn from(_: Short) -> Self {
        Self::BadMessage
    }
}

fn of_errno(errno: Option<Errno>) -> u32 {
    match errno {
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESRCH) => NO_SUCH_FILE,
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EXDEV) => PERMISSION_DENIED,
        _ => FAILURE,
    }
}

impl Refused {
    pub(super) fn packet(&self, id: u32) -> Bytes {
        let (code, message) = match self {
            Self::End => (END, "end".to_owned()),
            Self::Target(error) => (target(error), error.to_string()),
            Self::Io(error) => (of_errno(error.raw_os_error().map(Errno::from_raw)), error.to_string()),
            Self::Failure(message) => (FAILURE, (*message).to_owned()),
            Self::BadMessage => (BAD_MESSAGE, "the request cannot be read".to_owned()),
            Self::Unsupported => (UNSUPPORTED, "the request is not supported".to_owned()),
        };
        packet(id, code, &message)
    }
}

fn target(error: &TargetError) -> u32 {
    match error {
        TargetError::Forbidden { .. } | TargetError::HardLinked { .. } | TargetError::NotWritable { .. } => {
            PERMISSION_DENIED
        }
        TargetError::WrongKind { .. } => FAILURE,
        error => of_errno(error.errno()),
    }
}

pub(super) fn ok(id: u32) -> Bytes {
    packet(id, OK, "")
}

fn packet(id: u32, code: u32, message: &str) -> Bytes {
    Packet::answer(STATUS, id).u32(code).string(message.as_bytes()).string(b"en").finish()
}
