//! What a client has open: few files and directories, each under a number that is not given out twice in a row.

use std::collections::BTreeMap;
use std::fs::File;

use super::listing::DirectoryPages;
use super::status::Refused;
use crate::target::entry::Entry;

/// At once; as many as `limits@openssh.com` promises.
pub(super) const MOST: usize = 256;

/// A file that is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    /// To change its attributes by.
    pub(super) entry: Entry,
    pub(super) append: bool,
}

#[derive(Debug)]
pub(super) enum Open {
    File(Box<OpenFile>),
    Directory(Box<DirectoryPages>),
}

#[derive(Debug, Default)]
pub(super) struct Handles {
    next: u32,
    open: BTreeMap<u32, Open>,
}

const UNKNOWN: Refused = Refused::Failure("there is no such handle");

impl Handles {
    /// Asked before something is opened.
    pub(super) fn has_room(&self) -> Result<(), Refused> {
        if self.open.len() < MOST { Ok(()) } else { Err(Refused::Failure("too many files are open")) }
    }

    pub(super) fn add(&mut self, open: Open) -> [u8; 4] {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, open);
        number.to_be_bytes()
    }

    fn get(&mut self, handle: &[u8]) -> Result<&mut Open, Refused> {
        let number = handle.try_into().map(u32::from_be_bytes).map_err(|_| UNKNOWN)?;
        self.open.get_mut(&number).ok_or(UNKNOWN)
    }

    pub(super) fn file(&mut self, handle: &[u8]) -> Result<&mut OpenFile, Refused> {
        match self.get(handle)? {
            Open::File(file) => Ok(file),
            Open::Directory(_) => Err(Refused::Failure("the handle is a directory's")),
        }
    }

    pub(super) fn directory(&mut self, handle: &[u8]) -> Result<&mut DirectoryPages, Refused> {
        match self.get(handle)? {
            Open::Directory(pages) => Ok(pages),
            Open::File(_) => Err(Refused::Failure("the handle is a file's")),
        }
    }

    pub(super) fn close(&mut self, handle: &[u8]) -> Result<(), Refused> {
        let number = handle.try_into().map(u32::from_be_bytes).map_err(|_| UNKNOWN)?;
        self.open.remove(&number).map(drop).ok_or(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_handles_are_refused() {
        let mut handles = Handles::default();
        for handle in [&b""[..], b"x", b"\0\0\0\0", b"\xff\xff\xff\xff\xff"] {
            assert!(handles.file(handle).is_err() && handles.close(handle).is_err(), "{handle:?}");
        }
    }
}
