//! Delta recipes: how a new version is made of ranges of the base and new bytes.

use serde::{Deserialize, Serialize};

/// One step of a recipe; steps append to the new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// `len` bytes of the base from `offset`.
    Copy { offset: u64, len: u64 },
    /// These bytes.
    Data(Vec<u8>),
    /// `size` bytes, compressed by zstd with `len` bytes of the base from `offset` as its prefix.
    Patch { offset: u64, len: u32, size: u32, data: Vec<u8> },
}
