//! Content-defined chunks (FastCDC 2020) and the signature of a file made of them.
//!
//! How files are cut depends on their length alone, so that both sides cut the same way and a signature stays
//! small enough for one frame.

use fastcdc::v2020::FastCDC;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::message::MAX_FILE;

/// Average chunk length of files up to [`SCALE_FROM`] bytes; the least is a quarter of it, the most four times.
pub const AVERAGE: u64 = 4 * 1024;
/// From here on the average doubles with each doubling of the file, up to [`AVERAGE_MAX`].
const SCALE_FROM: u64 = 128 * 1024 * 1024;
const AVERAGE_MAX: u64 = 4 * 1024 * 1024;
/// Files longer than this have no signature: its chunks could outgrow a frame.
pub const MAX_SIGNED: u64 = 128 * 1024 * 1024 * 1024;

/// Why a signature from the wire is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SignatureError {
    #[error("chunk {index} of a signature has {len} bytes; {least} to {most} are possible")]
    Length { index: usize, len: u32, least: u32, most: u32 },
    #[error("a signature describes {total} bytes, more than {MAX_SIGNED}")]
    TooLong { total: u64 },
}

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

impl Chunk {
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        Self { len: bytes.len() as u32, digest }
    }
}

impl Signature {
    pub fn of(bytes: &[u8]) -> Self {
        let cuts = Cuts::for_len(bytes.len() as u64);
        Self { chunks: cuts.pieces(bytes).map(Chunk::of).collect() }
    }

    /// Bytes of the file that it describes.
    pub fn total(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len)).sum()
    }

    /// Checks a signature that came from a peer, and returns the length that it describes. Chunk lengths must be
    /// such as [`Signature::of`] makes for a file of that length, which bounds their number too.
    pub fn validate(&self) -> Result<u64, SignatureError> {
        let total = self.total();
        if total > MAX_SIGNED.min(MAX_FILE) {
            return Err(SignatureError::TooLong { total });
        }
        let cuts = Cuts::for_len(total);
        let (most, last) = (cuts.max as u32, self.chunks.len().wrapping_sub(1));
        for (index, &Chunk { len, .. }) in self.chunks.iter().enumerate() {
            let least = if index == last { 1 } else { cuts.min as u32 };
            if len < least || len > most {
                return Err(SignatureError::Length { index, len, least, most });
            }
        }
        Ok(total)
    }
}

/// Makes a signature of content that comes in pieces, holding no more than a few of the longest chunks.
#[derive(Debug)]
pub struct Signer {
    cuts: Cuts,
    pending: Vec<u8>,
    signature: Signature,
}

impl Signer {
    /// `total` is the length of the file. Where it turns out longer or shorter the signature is still right, but
    /// finds fewer equal chunks.
    pub fn new(total: u64) -> Self {
        Self { cuts: Cuts::for_len(total), pending: Vec::new(), signature: Signature::default() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (2 * self.cuts.max).saturating_sub(self.pending.len()).min(bytes.len());
            let (now, rest) = bytes.split_at(room);
            self.pending.extend_from_slice(now);
            bytes = rest;
            // Only a full look-ahead makes the cut that the whole file would have.
            self.drain(self.cuts.max);
        }
    }

    pub fn finish(mut self) -> Signature {
        self.drain(1);
        self.signature
    }

    fn drain(&mut self, ahead: usize) {
        let mut used = 0;
        while self.pending.len() - used >= ahead {
            let len = self.cuts.first(&self.pending[used..]);
            self.signature.chunks.push(Chunk::of(&self.pending[used..used + len]));
            used += len;
        }
        self.pending.drain(..used);
    }
}

/// The chunk lengths for a file of some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cuts {
    pub(crate) min: usize,
    pub(crate) average: usize,
    pub(crate) max: usize,
}

impl Cuts {
    pub(crate) fn for_len(total: u64) -> Self {
        let scale = total.div_ceil(SCALE_FROM).max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        let average = AVERAGE.saturating_mul(scale).min(AVERAGE_MAX) as usize;
        Self { min: average / 4, average, max: average * 4 }
    }

    /// Length of the first chunk of `bytes`, which are not empty.
    fn first(&self, bytes: &[u8]) -> usize {
        let window = &bytes[..bytes.len().min(self.max)];
        FastCDC::new(window, self.min, self.average, self.max).cut(0, window.len()).1.clamp(1, window.len())
    }

    pub(crate) fn pieces<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        FastCDC::new(bytes, self.min, self.average, self.max)
            .map(move |c| &bytes[c.offset..c.offset + c.length])
    }
}
