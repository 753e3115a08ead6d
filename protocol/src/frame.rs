//! Frames: a length, a flag and one or more postcard messages, compressed where it pays.
//!
//! Layout: `u32` little-endian header, whose top bit says "zstd" and whose other bits are the body's length;
//! a compressed body begins with the `u32` length of its plain form. Sans-IO: bytes in, messages out.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Longest body of a frame on the wire, and longest plain form, in bytes.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// A frame is closed once it holds this many plain bytes.
pub const FRAME_TARGET: usize = 256 * 1024;
const COMPRESSED: u32 = 1 << 31;
const HEADER: usize = 4;
/// Below this a frame is not worth compressing.
const COMPRESS_FROM: usize = 256;

#[derive(Debug, Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is longer than {MAX_FRAME}")]
    TooLong { len: usize },
    #[error("a frame is not what it claims: {0}")]
    Corrupt(&'static str),
    #[error("a message cannot be decoded")]
    Message(#[from] postcard::Error),
    #[error("zstd failed")]
    Zstd(#[source] std::io::Error),
}

/// Collects messages into frames.
#[derive(Debug, Default)]
pub struct Encoder {
    plain: Vec<u8>,
    /// zstd level; `None` sends plain frames, which is right on links faster than zstd.
    level: Option<i32>,
}

impl Encoder {
    pub fn new(level: Option<i32>) -> Self {
        Self { plain: Vec::new(), level }
    }

    /// Adds a message; a frame that is full is appended to `out`.
    pub fn push<M: Serialize>(&mut self, message: &M, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let encoded = postcard::to_extend(message, std::mem::take(&mut self.plain))?;
        self.plain = encoded;
        if self.plain.len() >= FRAME_TARGET { self.flush(out) } else { Ok(()) }
    }

    /// Appends what is collected to `out` as one frame; nothing where nothing is collected.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        if self.plain.is_empty() {
            return Ok(());
        }
        if self.plain.len() > MAX_FRAME {
            return Err(FrameError::TooLong { len: self.plain.len() });
        }
        match self.compressed()? {
            Some(body) => {
                let len = body.len() + 4;
                out.extend_from_slice(&(len as u32 | COMPRESSED).to_le_bytes());
                out.extend_from_slice(&(self.plain.len() as u32).to_le_bytes());
                out.extend_from_slice(&body);
            }
            None => {
                out.extend_from_slice(&(self.plain.len() as u32).to_le_bytes());
                out.extend_from_slice(&self.plain);
            }
        }
        self.plain.clear();
        Ok(())
    }

    /// The compressed body, where that saves at least an eighth.
    fn compressed(&self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(level) = self.level.filter(|_| self.plain.len() >= COMPRESS_FROM) else { return Ok(None) };
        let body = zstd::bulk::compress(&self.plain, level).map_err(FrameError::Zstd)?;
        Ok((body.len() + 4 <= self.plain.len() - self.plain.len() / 8).then_some(body))
    }
}

/// Cuts a byte stream into frames and frames into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were used up.
    used: usize,
    frame: Vec<u8>,
    /// Bytes of `frame` that were decoded.
    read: usize,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the wire.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` until more bytes are fed. After an error the stream is lost.
    // Not an iterator: the caller names the type of each message.
    #[allow(clippy::should_implement_trait)]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        if self.read == self.frame.len() && !self.next_frame()? {
            return Ok(None);
        }
        let (message, rest) = postcard::take_from_bytes(&self.frame[self.read..])?;
        let read = self.frame.len() - rest.len();
        if read == self.read {
            return Err(FrameError::Corrupt("a message of no bytes"));
        }
        self.read = read;
        Ok(Some(message))
    }

    /// Bytes that the decoder holds; bounded by the caller's reads and [`MAX_FRAME`].
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.used
    }

    /// How many more bytes complete the frame at hand, at least; 0 where a whole frame is buffered.
    pub fn wants(&self) -> usize {
        let have = &self.buffer[self.used..];
        match have.first_chunk::<HEADER>() {
            None => HEADER - have.len(),
            Some(header) => {
                let len = (u32::from_le_bytes(*header) & !COMPRESSED) as usize;
                (HEADER + len.min(MAX_FRAME)).saturating_sub(have.len())
            }
        }
    }

    fn next_frame(&mut self) -> Result<bool, FrameError> {
        let have = &self.buffer[self.used..];
        let Some(header) = have.first_chunk::<HEADER>() else { return Ok(false) };
        let header = u32::from_le_bytes(*header);
        let len = (header & !COMPRESSED) as usize;
        if len > MAX_FRAME {
            return Err(FrameError::TooLong { len });
        }
        if len == 0 {
            return Err(FrameError::Corrupt("an empty frame"));
        }
        let Some(body) = have.get(HEADER..HEADER + len) else { return Ok(false) };
        self.frame.clear();
        self.read = 0;
        if header & COMPRESSED != 0 {
            inflate(body, &mut self.frame)?;
        } else {
            self.frame.extend_from_slice(body);
        }
        self.used += HEADER + len;
        Ok(true)
    }
}

/// Decompresses `body` into exactly as many bytes as it announces, at most [`MAX_FRAME`].
fn inflate(body: &[u8], plain: &mut Vec<u8>) -> Result<(), FrameError> {
    let (len, zipped) = body.split_first_chunk::<4>().ok_or(FrameError::Corrupt("no plain length"))?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_FRAME || len == 0 {
        return Err(FrameError::TooLong { len });
    }
    plain.reserve_exact(len);
    let mut zstd = zstd::bulk::Decompressor::new().map_err(FrameError::Zstd)?;
    let got = zstd.decompress_to_buffer(zipped, plain).map_err(FrameError::Zstd)?;
    if got != len {
        plain.clear();
        return Err(FrameError::Corrupt("its plain length is not the announced one"));
    }
    Ok(())
}
