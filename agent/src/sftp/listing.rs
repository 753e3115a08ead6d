//! A directory, page by page: bounded answers for directories of any size.

use tokio_util::bytes::Bytes;

use super::attributes::{long_name, write};
use super::status::Refused;
use super::wire::{NAME, Packet};
use crate::target::error::TargetError;
use crate::target::parent::{Listing, Parent};

/// Entries of one page, as OpenSSH sends.
const PAGE: u32 = 100;
/// And its bytes.
const LONGEST: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct DirectoryPages(Listing);

impl DirectoryPages {
    pub(super) fn open(directory: &Parent) -> Result<Self, TargetError> {
        Ok(Self(directory.listing()?))
    }

    pub(super) fn directory(&self) -> &Parent {
        self.0.directory()
    }

    /// The next page; `Refused::End` after the last.
    pub(super) fn next(&mut self, id: u32) -> Result<Bytes, Refused> {
        let mut count = 0;
        let mut entries = Packet::new(0);
        while count < PAGE && entries.len() < LONGEST {
            let Some(name) = self.0.next() else { break };
            let name = name?;
            let directory = self.0.directory();
            let found = match name.as_slice() {
                b"." | b".." => directory.own_metadata(),
                name => directory.metadata(name),
            };
            // Gone since it was listed.
            let Ok(found) = found else { continue };
            entries = entries.string(&name).string(&long_name(&name, &found));
            entries = write(entries, &found);
            count += 1;
        }
        if count == 0 {
            return Err(Refused::End);
        }
        let entries = entries.finish();
        let entries = entries.get(5..).unwrap_or_default();
        Ok(Packet::answer(NAME, id).u32(count).raw(entries).finish())
    }
}
