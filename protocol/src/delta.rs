//! Delta recipes: how a new version is made of ranges of the base and new bytes.
//!
//! The client encodes ([`diff_content`] where it has the base, [`diff_signature`] where it knows only its chunks),
//! the agent applies ([`Applier`]). Both work in bounded memory and hand on each step as it is made.

mod apply;
mod encode;
mod patch;
mod plan;

use serde::{Deserialize, Serialize};

pub use apply::{Applier, DeltaError};
pub use encode::{diff_content, diff_signature, whole};

/// Most bytes that one [`Step::Patch`] makes, and most bytes of the base that it refers to.
pub const MAX_PATCH: u32 = 4 * 1024 * 1024;

/// One step of a recipe; steps append to the new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// `len` bytes of the base from `offset`.
    Copy { offset: u64, len: u64 },
    /// These bytes.
    Data(#[serde(with = "crate::bytes")] Vec<u8>),
    /// `size` bytes, compressed by zstd with `len` bytes of the base from `offset` as its prefix.
    Patch {
        offset: u64,
        len: u32,
        size: u32,
        #[serde(with = "crate::bytes")]
        data: Vec<u8>,
    },
}

impl Step {
    /// Bytes that the step appends.
    pub fn size(&self) -> u64 {
        match self {
            Step::Copy { len, .. } => *len,
            Step::Data(data) => data.len() as u64,
            Step::Patch { size, .. } => u64::from(*size),
        }
    }

    /// About as many bytes as the step has on the wire.
    pub fn wire_len(&self) -> usize {
        match self {
            Step::Copy { .. } => 12,
            Step::Data(data) => data.len() + 5,
            Step::Patch { data, .. } => data.len() + 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(base: &[u8], new: &[u8], steps: &[Step]) -> Vec<u8> {
        let mut applier = Applier::new(base.len() as u64, new.len() as u64);
        let mut out = Vec::new();
        for step in steps {
            let read = |at: u64, buf: &mut [u8]| {
                buf.copy_from_slice(&base[at as usize..][..buf.len()]);
                Ok(())
            };
            let write = |bytes: &[u8]| {
                out.extend_from_slice(bytes);
                Ok(())
            };
            applier.step(step, read, write).expect("our own steps apply");
        }
        applier.finish().expect("complete");
        out
    }

    fn steps(diff: impl FnOnce(&mut dyn FnMut(Step) -> Result<(), ()>) -> Result<(), ()>) -> Vec<Step> {
        let mut steps = Vec::new();
        diff(&mut |step| {
            steps.push(step);
            Ok(())
        })
        .expect("nothing stops it");
        steps
    }

    /// Bytes without repetition.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn an_edit_in_the_middle_costs_a_patch() {
        let base = noise(3_000_000);
        let mut new = base.clone();
        new.splice(1_500_000..1_500_010, *b"a few other bytes");
        let steps = steps(|emit| diff_content(&base, &new, emit));
        assert_eq!(made(&base, &new, &steps), new);
        assert!(steps.iter().map(Step::wire_len).sum::<usize>() < 1000, "{}", steps.len());
    }

    #[test]
    fn moved_blocks_are_found() {
        let base = noise(2_000_000);
        let new = [&base[1_000_000..], &base[..1_000_000]].concat();
        for steps in [
            steps(|emit| diff_content(&base, &new, emit)),
            steps(|emit| diff_signature(&crate::chunk::Signature::of(&base), &new, emit)),
        ] {
            assert_eq!(made(&base, &new, &steps), new);
            assert!(steps.iter().map(Step::wire_len).sum::<usize>() < 40_000);
        }
    }
}
