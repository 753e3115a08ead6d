//! Applies a recipe that may be hostile: nothing outside the base is read, nothing beyond the announced size is
//! written, and memory stays below ten MiB whatever the steps say.

use std::io;

use thiserror::Error;

use super::patch::Unpatcher;
use super::{MAX_PATCH, Step};

/// Copies pass through a buffer of this size.
const PIECE: usize = 256 * 1024;

/// Why a step was refused; the file is not to be used.
#[derive(Debug, Error)]
pub enum DeltaError {
    #[error("a delta refers to {len} bytes at {offset} of a base of {base_len}")]
    OutsideBase { offset: u64, len: u64, base_len: u64 },
    #[error("a delta makes more than the announced {new_size} bytes")]
    TooMuch { new_size: u64 },
    #[error("a delta ended after {made} of {new_size} bytes")]
    TooLittle { made: u64, new_size: u64 },
    #[error("a delta has a step that makes nothing")]
    EmptyStep,
    #[error("a patch of {size} bytes on {len} bytes of the base is larger than {MAX_PATCH}")]
    PatchTooLarge { size: u32, len: u32 },
    #[error("a patch does not make the {size} bytes that it announces: {cause}")]
    Patch { size: u32, cause: &'static str },
    #[error("the base cannot be read at {offset}")]
    ReadBase { offset: u64, source: io::Error },
    #[error("the new version cannot be written")]
    Write(#[source] io::Error),
}

/// Applies the steps of one file in order. After an error it is of no use.
pub struct Applier {
    base_len: u64,
    new_size: u64,
    made: u64,
    piece: Vec<u8>,
    unpatcher: Unpatcher,
}

impl Applier {
    /// Makes `new_size` bytes from a base of `base_len` (0 where there is none).
    pub fn new(base_len: u64, new_size: u64) -> Self {
        Self { base_len, new_size, made: 0, piece: Vec::new(), unpatcher: Unpatcher::default() }
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.new_size - self.made
    }

    /// Applies one step. `read_base` fills its buffer from an offset of the base, `write` takes the next bytes of
    /// the new version.
    pub fn step(
        &mut self,
        step: &Step,
        read_base: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DeltaError> {
        let size = step.size();
        if size == 0 {
            return Err(DeltaError::EmptyStep);
        }
        if size > self.remaining() {
            return Err(DeltaError::TooMuch { new_size: self.new_size });
        }
        match step {
            Step::Copy { offset, len } => self.copy(*offset, *len, read_base, write)?,
            Step::Data(data) => write(data).map_err(DeltaError::Write)?,
            Step::Patch { offset, len, size, data } => {
                self.patch(*offset, *len, *size, data, read_base, write)?;
            }
        }
        self.made += size;
        Ok(())
    }

    /// Checks that the whole new version was made.
    pub fn finish(self) -> Result<(), DeltaError> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(DeltaError::TooLittle { made: self.made, new_size: self.new_size }),
        }
    }

    fn copy(
        &mut self,
        offset: u64,
        len: u64,
        mut read_base: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DeltaError> {
        let end = self.end_in_base(offset, len)?;
        let mut at = offset;
        while at < end {
            let take = (end - at).min(PIECE as u64) as usize;
            self.piece.resize(take, 0);
            read_base(at, &mut self.piece).map_err(|source| DeltaError::ReadBase { offset: at, source })?;
            write(&self.piece).map_err(DeltaError::Write)?;
            at += take as u64;
        }
        Ok(())
    }

    fn patch(
        &mut self,
        offset: u64,
        len: u32,
        size: u32,
        data: &[u8],
        mut read_base: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DeltaError> {
        if size > MAX_PATCH || len > MAX_PATCH {
            return Err(DeltaError::PatchTooLarge { size, len });
        }
        self.end_in_base(offset, u64::from(len))?;
        self.piece.resize(len as usize, 0);
        read_base(offset, &mut self.piece).map_err(|source| DeltaError::ReadBase { offset, source })?;
        let made = self
            .unpatcher
            .unpatch(&self.piece, data, size as usize)
            .map_err(|cause| DeltaError::Patch { size, cause })?;
        write(made).map_err(DeltaError::Write)
    }

    /// The end of a range that lies in the base.
    fn end_in_base(&self, offset: u64, len: u64) -> Result<u64, DeltaError> {
        offset.checked_add(len).filter(|&end| end <= self.base_len).ok_or(DeltaError::OutsideBase {
            offset,
            len,
            base_len: self.base_len,
        })
    }
}
