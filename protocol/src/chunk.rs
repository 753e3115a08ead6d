//! Content-defined chunks and the signature of a file made of them.

use serde::{Deserialize, Serialize};

/// The chunks of a file version in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    pub chunks: Vec<Chunk>,
}

/// One chunk: its length in bytes, and the first 16 bytes of its BLAKE3 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    pub len: u32,
    pub digest: [u8; 16],
}
