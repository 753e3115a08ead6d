//! The first words of a session: who speaks, and in which version of the protocol.
//!
//! The layout of the hello is frozen: any two versions can read each other's far enough to say which is older.

use thiserror::Error;

/// The version of this protocol; raised by any change that an older peer would misread.
pub const VERSION: u32 = 1;
/// Length of a hello in bytes.
pub const HELLO_LEN: usize = 12;
const MAGIC: &[u8; 8] = b"DEVSYNC\n";

#[derive(Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error("the peer does not speak the devsync protocol (it began with {0:?})")]
    NotDevsync(String),
    #[error("the {peer} speaks protocol version {theirs}, this program version {VERSION}")]
    Version { peer: &'static str, theirs: u32 },
}

/// The bytes that each side sends first.
pub fn hello() -> [u8; HELLO_LEN] {
    let mut bytes = [0; HELLO_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

/// Checks the other side's hello; `peer` is "agent" or "client" for the message.
pub fn check(bytes: &[u8; HELLO_LEN], peer: &'static str) -> Result<(), HandshakeError> {
    if &bytes[..8] != MAGIC {
        return Err(HandshakeError::NotDevsync(crate::path::display(bytes)));
    }
    let theirs = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if theirs != VERSION {
        return Err(HandshakeError::Version { peer, theirs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_version_passes() {
        assert_eq!(check(&hello(), "agent"), Ok(()));
        let mut other = hello();
        other[8] = 9;
        assert_eq!(check(&other, "agent"), Err(HandshakeError::Version { peer: "agent", theirs: 9 }));
        assert!(matches!(check(b"SSH-2.0-Open", "agent"), Err(HandshakeError::NotDevsync(_))));
    }
}
