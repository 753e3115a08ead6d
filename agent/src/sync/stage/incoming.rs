//! A file whose contents arrive: rebuilt step by step from its base, into memory or a temporary file. What becomes of
//! it is decided elsewhere.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;

use devsync_protocol::delta::{Applier, DeltaError, Step};
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::RootId;
use devsync_protocol::path::RelPath;

use super::chain;
use crate::sync::ledger::Stamp;
use crate::sync::root::RootError;
use crate::target::temp::Temp;

/// A file whose steps are arriving.
pub(crate) struct Incoming {
    pub(super) root: RootId,
    pub(super) file: Announced,
    pub(super) applier: Applier,
    pub(super) base: Option<File>,
    pub(super) hasher: Hasher,
    pub(super) sink: Sink,
}

/// What was said of a file before its steps.
pub(super) struct Announced {
    pub(super) path: RelPath,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) digest: Digest,
    pub(super) expected: Option<Stamp>,
}

/// Why the steps of a file could not be applied here.
pub(super) enum Broken {
    /// The app changed the base.
    Base,
    Kernel(String),
}

pub(super) enum Sink {
    Memory(Vec<u8>),
    Temp(Temp),
    /// The file is refused; its steps are counted and dropped.
    Nowhere {
        left: u64,
    },
}

impl Incoming {
    /// A file that is refused but whose steps still come.
    pub(super) fn dropped(root: RootId, path: RelPath, size: u64) -> Self {
        let (applier, hasher) = (Applier::new(0, 0), Hasher::new());
        let file = Announced { path, mode: 0, size, digest: Digest::of(b""), expected: None };
        Self { root, file, applier, base: None, hasher, sink: Sink::Nowhere { left: size } }
    }

    pub(crate) fn root(&self) -> RootId {
        self.root
    }

    pub(super) fn left(&self) -> u64 {
        match &self.sink {
            Sink::Nowhere { left } => *left,
            _ => self.applier.remaining(),
        }
    }

    /// Applies steps; tells what the kernel refused, after which the rest is counted and dropped.
    pub(super) fn take(&mut self, steps: &[Step]) -> Result<Option<Broken>, RootError> {
        let mut failure = None;
        for step in steps {
            if let Sink::Nowhere { left } = &mut self.sink {
                let rest = left.checked_sub(step.size()).filter(|_| step.size() > 0);
                *left = rest.ok_or(RootError::Protocol("a file is longer than announced"))?;
                continue;
            }
            match self.apply(step) {
                Ok(()) => {}
                Err(DeltaError::ReadBase { source, .. }) if source.kind() == ErrorKind::UnexpectedEof => {
                    failure = Some(Broken::Base);
                    self.sink = Sink::Nowhere { left: self.left() - step.size() };
                }
                Err(error @ (DeltaError::Write(_) | DeltaError::ReadBase { .. })) => {
                    failure = Some(Broken::Kernel(chain(&error)));
                    self.sink = Sink::Nowhere { left: self.left() - step.size() };
                }
                Err(error) => return Err(RootError::Delta(error)),
            }
        }
        Ok(failure)
    }

    fn apply(&mut self, step: &Step) -> Result<(), DeltaError> {
        let Self { applier, base, hasher, sink, .. } = self;
        let read = |offset, buffer: &mut [u8]| match &base {
            Some(file) => file.read_exact_at(buffer, offset),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        let write = |bytes: &[u8]| {
            hasher.update(bytes);
            match sink {
                Sink::Memory(memory) => memory.extend_from_slice(bytes),
                Sink::Temp(temp) => temp.write_all(bytes)?,
                Sink::Nowhere { .. } => {}
            }
            Ok(())
        };
        applier.step(step, read, write)
    }
}
