//! Remembers the digests of files by their stamps, so that an unchanged file is not read again.
//!
//! Git's racy rule, per entry: a digest taken within the clock's granularity of the file's last change is not
//! trusted, for a later write may leave the same stamp. A damaged or foreign file is an empty index.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use devsync_protocol::digest::Digest;
use devsync_protocol::message::MAX_ENTRIES;
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::{Node, Tree};
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::platform::{self, Stamp};

/// First bytes of an index file; the last is the version of what follows.
const MAGIC: &[u8; 8] = b"devsidx\x01";
/// A longer file is not read.
const MAX_BYTES: u64 = 512 << 20;
/// Kernels stamp files with their tick, 10 ms at most; file systems without fractions round to 2 s.
const GRANULARITY_NS: i64 = 20_000_000;
const COARSE_GRANULARITY_NS: i64 = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    digest: Digest,
    settled: bool,
}

/// The digests known for one root.
#[derive(Debug, Default)]
pub struct Index {
    file: Option<PathBuf>,
    entries: HashMap<RelPath, Known>,
    dirty: bool,
}

impl Index {
    /// The index of `root` in the user's cache directory; empty where there is none to be had.
    pub fn open(root: &Path) -> Self {
        cache_dir().map(|dir| Self::open_in(&dir, root)).unwrap_or_default()
    }

    /// As [`Index::open`], with the directory that holds the indexes of all roots.
    pub fn open_in(dir: &Path, root: &Path) -> Self {
        let name = Digest::of(&platform::path_bytes(root).unwrap_or_default()).to_string();
        let file = dir.join(&name[..32]);
        let entries = load(&file).unwrap_or_default();
        Self { file: Some(file), entries, dirty: false }
    }

    /// The digest of the file at `path`, if nothing says that it changed.
    pub fn digest(&self, path: &RelPath, stamp: &Stamp) -> Option<Digest> {
        let known = self.entries.get(path)?;
        (known.settled && known.stamp == *stamp).then_some(known.digest)
    }

    /// Records what was read at `read_at` (before the stamp was taken).
    pub fn insert(&mut self, path: RelPath, stamp: Stamp, digest: Digest, read_at: SystemTime) {
        let settled = is_settled(&stamp, read_at);
        self.entries.insert(path, Known { stamp, digest, settled });
        self.dirty = true;
    }

    /// Drops all that is not in `tree`.
    pub fn retain(&mut self, tree: &Tree) {
        // After a scan each file of the tree has an entry, so that equal numbers are equal sets.
        let before = self.entries.len();
        if before > tree.0.values().filter(|node| matches!(node, Node::File { .. })).count() {
            self.entries.retain(|path, _| tree.0.contains_key(path));
        }
        self.dirty |= self.entries.len() != before;
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the index if anything changed: a temporary file, then a rename.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.dirty) else { return Ok(()) };
        let dir = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let entries: Vec<_> = self.entries.iter().collect();
        let body = postcard::to_stdvec(&entries).map_err(io::Error::other)?;
        let mut temp = tempfile::NamedTempFile::new_in(dir)?;
        temp.write_all(MAGIC)?;
        temp.write_all(&Digest::of(&body).0)?;
        temp.write_all(&body)?;
        temp.persist(file)?;
        self.dirty = false;
        Ok(())
    }
}

fn is_settled(stamp: &Stamp, read_at: SystemTime) -> bool {
    let now = read_at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let changed = stamp.changed_ns();
    let slack = if changed % 1_000_000_000 == 0 { COARSE_GRANULARITY_NS } else { GRANULARITY_NS };
    changed.saturating_add(slack) < now
}

fn load(file: &Path) -> Option<HashMap<RelPath, Known>> {
    if fs::metadata(file).ok()?.len() > MAX_BYTES {
        return None;
    }
    let bytes = fs::read(file).ok()?;
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_at_checked(32)?;
    if Digest::of(body).0 != sum {
        return None;
    }
    let entries: Vec<(RelPath, Known)> = postcard::from_bytes(body).ok()?;
    (entries.len() <= MAX_ENTRIES).then(|| entries.into_iter().collect())
}

/// Where indexes are kept: `devsync/index` in the user's cache directory.
pub fn cache_dir() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.cache_dir().join("devsync").join("index"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn path(p: &str) -> RelPath {
        RelPath::new(p).expect("valid")
    }

    fn stamp(changed: Duration) -> Stamp {
        let ns = changed.as_nanos() as i64;
        Stamp { size: 3, mtime_ns: ns, ctime_ns: ns, inode: 7 }
    }

    #[test]
    fn a_digest_taken_right_after_a_change_is_not_trusted() {
        let changed = Duration::from_millis(5_000_001);
        let (mut index, digest) = (Index::default(), Digest::of(b"abc"));
        for (later_ms, trusted) in [(0, false), (15, false), (25, true)] {
            let read_at = UNIX_EPOCH + changed + Duration::from_millis(later_ms);
            index.insert(path("a"), stamp(changed), digest, read_at);
            assert_eq!(index.digest(&path("a"), &stamp(changed)), trusted.then_some(digest), "{later_ms}");
        }
    }

    #[test]
    fn whole_seconds_mean_a_coarse_clock() {
        let changed = Duration::from_secs(5_000);
        let mut index = Index::default();
        index.insert(
            path("a"),
            stamp(changed),
            Digest::of(b""),
            UNIX_EPOCH + changed + Duration::from_secs(1),
        );
        assert_eq!(index.digest(&path("a"), &stamp(changed)), None);
    }

    #[test]
    fn a_file_survives_only_whole() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = Path::new("/some/root");
        let changed = Duration::from_millis(1_001);
        let mut index = Index::open_in(dir.path(), root);
        assert!(index.is_empty());
        for name in ["a", "b/\u{ff}"] {
            index.insert(path(name), stamp(changed), Digest::of(b"x"), SystemTime::now());
        }
        index.save().expect("saved");
        assert_eq!(Index::open_in(dir.path(), root).entries, index.entries);
        assert!(Index::open_in(dir.path(), Path::new("/other")).is_empty());

        let file = index.file.expect("named");
        let good = fs::read(&file).expect("read");
        for cut in 0..good.len() {
            fs::write(&file, &good[..cut]).expect("write");
            assert!(Index::open_in(dir.path(), root).is_empty(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file, &bad).expect("write");
            assert!(Index::open_in(dir.path(), root).is_empty(), "flipped at {at}");
        }
    }
}
