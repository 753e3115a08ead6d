//! debugpy's adapter, which the app itself has started: it only listens on a port of the loopback that it shares with us.

use std::net::{Ipv4Addr, TcpStream};

use super::{DebugError, dlv};

/// Joins standard input and output with the adapter.
pub(super) fn run(port: u16) -> Result<(), DebugError> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let stream = stream.map_err(|source| DebugError::NoAdapter { port, source })?;
    dlv::carry(&stream).map_err(|source| DebugError::Io { what: "carry debugpy's protocol", source })
}
