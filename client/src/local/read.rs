//! Reads files so that what is sent is one version, never a mix of two.
//!
//! A read counts only if the stamp was the same before and after. A small file is held in memory; a large one
//! is digested through one descriptor, and read again through it when it is sent, with the digest checked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::path::display;
use thiserror::Error;

use super::platform::{self, Stamp};

/// Files up to this size are held in memory.
pub const IN_MEMORY: u64 = 8 << 20;
/// How often a file that changes during a read is read again before the caller is told to wait for its event.
const ATTEMPTS: u32 = 3;
const PIECE: usize = 256 * 1024;

#[derive(Debug, Error)]
pub enum ReadError {
    /// Try again at the file's next event.
    #[error("{path} is still changing")]
    Changing { path: String },
    #[error("{path} is gone")]
    Gone { path: String },
    #[error("{path} is not a regular file")]
    NotAFile { path: String },
    #[error("cannot read {path}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

/// One version of a file.
#[derive(Debug)]
pub struct Contents {
    pub stamp: Stamp,
    /// Permission bits as they travel.
    pub mode: u16,
    pub digest: Digest,
    pub body: Body,
}

/// Where the bytes are.
#[derive(Debug)]
pub enum Body {
    Bytes(Vec<u8>),
    /// Larger than [`IN_MEMORY`].
    File(LargeFile),
}

/// A large file, open, digested once; its bytes are read again while they are sent.
pub struct LargeFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    digest: Digest,
    /// Large, so that [`Body`] stays small.
    hasher: Box<Hasher>,
    left: u64,
}

/// Reads the regular file at `path`, which is not followed if it is a link.
pub fn read_stable(path: &Path) -> Result<Contents, ReadError> {
    read_within(path, IN_MEMORY)
}

/// As [`read_stable`]; files larger than `in_memory` stay on disk.
pub fn read_within(path: &Path, in_memory: u64) -> Result<Contents, ReadError> {
    for _ in 0..ATTEMPTS {
        if let Some(contents) = attempt(path, in_memory)? {
            return Ok(contents);
        }
    }
    Err(ReadError::Changing { path: shown(path) })
}

/// The digest and stamp of one version, without keeping its bytes.
pub(crate) fn digest_stable(path: &Path) -> Result<(Stamp, u16, Digest), ReadError> {
    let contents = read_within(path, 0)?;
    Ok((contents.stamp, contents.mode, contents.digest))
}

fn attempt(path: &Path, in_memory: u64) -> Result<Option<Contents>, ReadError> {
    let mut file = platform::open_read(path).map_err(|e| error(path, e))?;
    let meta = file.metadata().map_err(|e| error(path, e))?;
    if !meta.is_file() {
        return Err(ReadError::NotAFile { path: shown(path) });
    }
    let (stamp, mode) = (platform::stamp(&meta), platform::mode(&meta));
    let mut bytes = Vec::new();
    let small = stamp.size <= in_memory;
    let digest = if small {
        bytes.reserve_exact(stamp.size as usize + 1);
        // One byte more than expected is enough to see that the file grew.
        (&mut file).take(stamp.size + 1).read_to_end(&mut bytes).map_err(|e| error(path, e))?;
        Digest::of(&bytes)
    } else {
        digest_of(&mut file, stamp.size).map_err(|e| error(path, e))?
    };
    let after = file.metadata().map_err(|e| error(path, e))?;
    if platform::stamp(&after) != stamp || small && bytes.len() as u64 != stamp.size {
        return Ok(None);
    }
    let body = match small {
        true => Body::Bytes(bytes),
        false => {
            file.seek(SeekFrom::Start(0)).map_err(|e| error(path, e))?;
            let path = path.to_path_buf();
            Body::File(LargeFile { file, path, stamp, digest, hasher: Box::default(), left: stamp.size })
        }
    };
    Ok(Some(Contents { stamp, mode, digest, body }))
}

fn digest_of(file: &mut File, size: u64) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE).max(1))];
    let mut limited = file.take(size.saturating_add(1));
    loop {
        match limited.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl std::fmt::Debug for LargeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LargeFile({}, {} of {} bytes left)", shown(&self.path), self.left, self.stamp.size)
    }
}

impl LargeFile {
    pub fn size(&self) -> u64 {
        self.stamp.size
    }

    /// Fills `piece` from its start, from where the last call ended; 0 at the end, and only if all that was
    /// handed out is the version whose digest [`Contents`] names. On [`ReadError::Changing`] what was sent of it
    /// must be thrown away.
    pub fn next_piece(&mut self, piece: &mut [u8]) -> Result<usize, ReadError> {
        if self.left == 0 {
            return self.check().map(|()| 0);
        }
        let want = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut got = 0;
        while got < want {
            match self.file.read(&mut piece[got..want]) {
                Ok(0) => return Err(ReadError::Changing { path: shown(&self.path) }),
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(error(&self.path, e)),
            }
        }
        self.hasher.update(&piece[..got]);
        self.left -= got as u64;
        Ok(got)
    }

    /// Starts again from the first byte.
    pub fn rewind(&mut self) -> Result<(), ReadError> {
        self.file.seek(SeekFrom::Start(0)).map_err(|e| error(&self.path, e))?;
        *self.hasher = Hasher::new();
        self.left = self.stamp.size;
        Ok(())
    }

    /// The descriptor, for reads at other offsets. Whoever uses it checks the digest of what it makes.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check(&self) -> Result<(), ReadError> {
        let now = self.file.metadata().map_err(|e| error(&self.path, e))?;
        let same = now.len() == self.stamp.size && Hasher::clone(&self.hasher).finish() == self.digest;
        if same { Ok(()) } else { Err(ReadError::Changing { path: shown(&self.path) }) }
    }
}

fn error(path: &Path, source: io::Error) -> ReadError {
    let path = shown(path);
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Gone { path },
        _ if platform::is_no_file(&source) => ReadError::NotAFile { path },
        _ => ReadError::Io { path, source },
    }
}

fn shown(path: &Path) -> String {
    display(&platform::path_bytes(path).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn small_and_large_files_have_the_same_digest() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        for size in [0usize, 1, PIECE - 1, PIECE, PIECE * 3 + 7] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            fs::write(&path, &bytes).expect("write");
            let whole = read_stable(&path).expect("read");
            assert!(matches!(whole.body, Body::Bytes(ref b) if *b == bytes));
            let large = read_within(&path, 0).expect("read");
            assert_eq!((large.digest, large.stamp), (Digest::of(&bytes), whole.stamp));
            if let Body::File(mut file) = large.body {
                for _ in 0..2 {
                    let (mut sent, mut piece) = (Vec::new(), vec![0; 1000]);
                    while let n @ 1.. = file.next_piece(&mut piece).expect("piece") {
                        sent.extend_from_slice(&piece[..n]);
                    }
                    assert_eq!(sent, bytes);
                    file.rewind().expect("rewind");
                }
            }
        }
    }

    #[test]
    fn a_file_rewritten_in_place_while_it_is_sent_is_noticed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        fs::write(&path, vec![b'a'; 10_000]).expect("write");
        let Body::File(mut file) = read_within(&path, 0).expect("read").body else { panic!("large") };
        let mut piece = vec![0; 6_000];
        assert_eq!(file.next_piece(&mut piece).expect("first piece"), 6_000);
        fs::write(&path, vec![b'b'; 10_000]).expect("write");
        assert_eq!(file.next_piece(&mut piece).expect("second piece"), 4_000);
        assert!(matches!(file.next_piece(&mut piece), Err(ReadError::Changing { .. })));
    }

    #[test]
    fn a_read_is_never_torn() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        let done = AtomicBool::new(false);
        fs::write(&path, vec![b'a'; 300_000]).expect("write");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in (b'a'..=b'z').cycle().take(400) {
                    fs::write(&path, vec![byte; 300_000]).expect("write");
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                match read_stable(&path) {
                    Ok(Contents { body: Body::Bytes(bytes), .. }) => {
                        assert!(bytes.windows(2).all(|w| w[0] == w[1]), "torn");
                    }
                    Ok(_) => panic!("small"),
                    Err(error) => assert!(matches!(error, ReadError::Changing { .. }), "{error}"),
                }
            }
        });
    }
}
