//! Copies of the larger files that the pod holds, so that the next version is sent as a delta against them.
//!
//! A cache by digest in the user's cache directory: bounded, checked when read, and never missed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::DELTA_FROM;

/// Most bytes that all copies of all sessions take.
const MAX_TOTAL: u64 = 1 << 30;
/// A larger file is not kept.
const MAX_FILE: u64 = 512 << 20;

#[derive(Debug, Clone)]
pub(super) struct Bases {
    dir: PathBuf,
}

impl Bases {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// True for a file that is worth a copy.
    pub(super) fn wants(size: u64) -> bool {
        (DELTA_FROM..=MAX_FILE).contains(&size)
    }

    /// The copy of this content, if there is one that is whole.
    pub(super) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let bytes = fs::read(&path).ok()?;
        if Digest::of(&bytes) != *digest {
            let _ = fs::remove_file(&path);
            return None;
        }
        // The age by which copies are thrown away is that of their last use.
        if let Ok(file) = fs::File::options().append(true).open(&path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes)
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Keeps a copy; the oldest ones make room. A failure only costs the next delta.
    pub(super) fn put(&self, digest: &Digest, bytes: &[u8]) {
        if !Self::wants(bytes.len() as u64) || self.has(digest) {
            return;
        }
        let kept = self.make_room(bytes.len() as u64).and_then(|()| {
            let mut temp = tempfile::NamedTempFile::new_in(&self.dir)?;
            temp.write_all(bytes)?;
            temp.persist(self.path(digest)).map_err(|e| e.error).map(|_| ())
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "no copy was kept for the next delta");
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn make_room(&self, size: u64) -> io::Result<()> {
        crate::transport::stdio::make_private(&self.dir)?;
        let mut copies = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            copies.push((meta.modified()?, meta.len(), entry.path()));
        }
        let mut total: u64 = copies.iter().map(|(_, len, _)| len).sum();
        copies.sort();
        for (_, len, path) in copies {
            if total + size <= MAX_TOTAL {
                break;
            }
            remove(&path)?;
            total -= len;
        }
        Ok(())
    }
}

/// Another session may have removed it already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_given_back_only_if_it_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let bases = Bases::new(dir.path().join("bases"));
        let bytes = vec![7; 100_000];
        let digest = Digest::of(&bytes);
        assert_eq!(bases.get(&digest), None);
        bases.put(&digest, &bytes);
        assert_eq!(bases.get(&digest), Some(bytes));
        fs::write(bases.path(&digest), "other").expect("written");
        assert_eq!(bases.get(&digest), None);
        assert!(!bases.has(&digest));
        bases.put(&Digest::of(b"small"), b"small");
        assert!(!bases.has(&Digest::of(b"small")));
    }
}
