//! SFTP (version 3, as OpenSSH speaks it) on the app's files, over a pair of blocking streams: one request after the
//! other on the calling thread, which carries the app's file-system ids. Paths are the app's, absolute in its root.
//!
//! Own code and not russh-sftp's server: that one takes names as UTF-8 only, leaves a request that it cannot read
//! without an answer of its id, and copies each block twice.

mod attributes;
mod extensions;
mod handles;
mod listing;
mod paths;
mod requests;
mod status;
mod wire;

use std::io::{self, Read};

use thiserror::Error;
use tokio_util::bytes::Bytes;

use crate::target::error::TargetError;
use crate::world::World;
use requests::Server;
use wire::{LONGEST_PACKET, Reader};

/// Takes answers; each is a whole packet.
pub type Answer<'a> = dyn FnMut(Bytes) -> io::Result<()> + 'a;

#[derive(Debug, Error)]
pub enum SftpError {
    #[error("the connection to the client failed")]
    Io(#[from] io::Error),
    #[error("the client sent a packet of {0} bytes, more than {LONGEST_PACKET}")]
    TooLong(usize),
    #[error("the client did not begin with SSH_FXP_INIT")]
    NoInit,
    #[error("the app's root cannot be used")]
    Target(#[from] TargetError),
}

/// What a session did, for the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub read: u64,
    pub written: u64,
    /// Files that were opened for writing.
    pub opened_to_write: u64,
    /// Entries that were made, removed, renamed or given other attributes.
    pub changed: u64,
}

/// Serves one client to the end of its input; what it did is told in `tally` even then when it ends with an error.
pub fn serve(
    input: &mut dyn Read,
    answer: &mut Answer<'_>,
    world: &World,
    tally: &mut Tally,
) -> Result<(), SftpError> {
    let files = world.files()?;
    // Held for the whole session: each operation then finds the thread's ids as it needs them.
    let _ids = files.enter()?;
    let mut reader = Reader::new(input);
    let mut server = Server::new(files, world.home());
    let served = server.run(&mut reader, answer);
    *tally = server.tally();
    served
}
