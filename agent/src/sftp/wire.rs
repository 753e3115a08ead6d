//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02): bounded reading, and writing. It knows no files.

use std::io::{self, Read};

use tokio_util::bytes::Bytes;

use super::SftpError;

/// As OpenSSH's server: 256 KiB.
pub(super) const LONGEST_PACKET: usize = 256 * 1024;
/// Longest block in one read or write: what is left for it in a packet.
pub(super) const LONGEST_BLOCK: u32 = 255 * 1024;

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const LSTAT: u8 = 7;
pub(super) const FSTAT: u8 = 8;
pub(super) const SETSTAT: u8 = 9;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const REALPATH: u8 = 16;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
pub(super) const READLINK: u8 = 19;
pub(super) const SYMLINK: u8 = 20;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
pub(super) const EXTENDED: u8 = 200;
pub(super) const EXTENDED_REPLY: u8 = 201;

/// Packets from a stream, into one buffer.
pub(super) struct Reader<'r> {
    input: &'r mut dyn Read,
    buffer: Vec<u8>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(input: &'r mut dyn Read) -> Self {
        Self { input, buffer: Vec::new() }
    }

    /// The next packet, without its length; None at the end of input.
    pub(super) fn next(&mut self) -> Result<Option<Fields<'_>>, SftpError> {
        let mut length = [0; 4];
        let mut got = 0;
        while got < length.len() {
            match self.input.read(&mut length[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST_PACKET {
            return Err(SftpError::TooLong(length));
        }
        self.buffer.resize(length, 0);
        self.input.read_exact(&mut self.buffer)?;
        Ok(Some(Fields(&self.buffer)))
    }
}

/// The packet ended before its fields did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Short;

/// What is left of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'p>(&'p [u8]);

impl<'p> Fields<'p> {
    #[cfg(test)]
    pub(super) fn of(bytes: &'p [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Short> {
        let (first, rest) = self.0.split_first().ok_or(Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Short> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Short> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    pub(super) fn string(&mut self) -> Result<&'p [u8], Short> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Short);
        }
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(string)
    }
}

/// A packet that is being made: its length is put in at the end.
#[derive(Debug)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    pub(super) fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    /// An answer to the request `id`.
    pub(super) fn answer(kind: u8, id: u32) -> Self {
        Self::new(kind).u32(id)
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        self.0.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A DATA answer that is filled in place: `fill` gets room for `most` bytes and says how many it used. None where
    /// it used none.
    pub(super) fn data(
        id: u32,
        most: u32,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<Bytes>> {
        const HEAD: usize = 13;
        let mut bytes = vec![0; HEAD + most.min(LONGEST_BLOCK) as usize];
        let used = fill(bytes.get_mut(HEAD..).unwrap_or_default())?;
        if used == 0 {
            return Ok(None);
        }
        bytes.truncate(HEAD + used);
        let head = Self::answer(DATA, id).u32(u32::try_from(used).unwrap_or(0)).0;
        bytes.splice(..HEAD, head);
        Ok(Some(Self(bytes).finish()))
    }

    pub(super) fn finish(mut self) -> Bytes {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0.splice(..4, length.to_be_bytes());
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_as_it_was_written() {
        let bytes = Packet::answer(READ, 7).string(b"h\0").u64(1 << 40).u32(9).finish();
        let mut input = &bytes[..];
        let mut reader = Reader::new(&mut input);
        let mut fields = reader.next().expect("a packet").expect("not the end");
        assert_eq!((fields.byte(), fields.u32(), fields.string()), (Ok(READ), Ok(7), Ok(&b"h\0"[..])));
        assert_eq!((fields.u64(), fields.u32(), fields.byte()), (Ok(1 << 40), Ok(9), Err(Short)));
        assert!(reader.next().expect("no error").is_none());
    }

    #[test]
    fn a_cut_packet_is_an_error_and_a_huge_one_is_refused_before_it_is_awaited() {
        let bytes = Packet::answer(OPEN, 7).string(b"/x").finish();
        for length in 1..bytes.len() {
            let mut input = &bytes[..length];
            assert!(Reader::new(&mut input).next().is_err(), "{length}");
        }
        let mut input = &u32::MAX.to_be_bytes()[..];
        assert!(matches!(Reader::new(&mut input).next(), Err(SftpError::TooLong(_))));
        assert_eq!(Fields::of(&[0, 0, 0, 9, b'x']).string(), Err(Short));
    }

    #[test]
    fn data_is_framed_around_what_was_read() {
        let packet = Packet::data(5, 100, |room| {
            room[..2].copy_from_slice(b"ab");
            Ok(2)
        });
        let expected = Packet::answer(DATA, 5).string(b"ab").finish();
        assert_eq!(packet.expect("read"), Some(expected));
        assert_eq!(Packet::data(5, 100, |_| Ok(0)).expect("read"), None);
    }
}
