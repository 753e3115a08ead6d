//! Marks: the directories in which temporary files may lie, written down before the first is made, so that
//! what an agent that was killed left behind is removed by the next.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use devsync_protocol::path::RelPath;

use crate::target::error::TargetError;
use crate::target::parent::{Parent, is_temp_name};
use crate::target::root::SyncRoot;

/// Most entries of a directory that are looked through for leftovers.
const MAX_ENTRIES: usize = 1_000_000;

#[derive(Debug)]
pub(crate) struct Marks {
    /// `None` for a session that makes no temporary files.
    file: Option<File>,
    dirs: BTreeSet<Vec<u8>>,
}

impl Marks {
    /// Opens the marks at `path` and gives the directories that an earlier agent left in them.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Option<RelPath>>)> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).append(true).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(1 << 28).read_to_end(&mut bytes)?;
        let left = bytes.split(|b| *b == 0).skip(1);
        let left = left.map(|dir| RelPath::new(dir).ok()).collect();
        Ok((Self { file: Some(file), dirs: BTreeSet::new() }, left))
    }

    /// For a session that only looks.
    pub(crate) fn none() -> Self {
        Self { file: None, dirs: BTreeSet::new() }
    }

    /// Notes that a temporary file will be made in `dir` (empty: the sync root).
    pub(crate) fn note(&mut self, dir: &[u8]) -> io::Result<()> {
        if self.dirs.contains(dir) {
            return Ok(());
        }
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("this session only looks"))?;
        file.write_all(&[b"\0", dir].concat())?;
        self.dirs.insert(dir.to_vec());
        Ok(())
    }

    /// Every temporary file is gone.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.dirs.is_empty() {
            return Ok(());
        }
        self.dirs.clear();
        self.wipe()
    }

    /// Forgets what an earlier agent noted, once it was swept.
    pub(crate) fn wipe(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.set_len(0)?;
        file.rewind()
    }
}

/// Removes temporary files of an earlier agent from one directory; gives their number.
pub(crate) fn sweep(root: &SyncRoot, dir: Option<&RelPath>) -> Result<usize, TargetError> {
    let parent: Parent = match root.directory(dir.map_or(&[], |d| d.as_bytes())) {
        Ok(parent) => parent,
        Err(e) if e.is_not_found() || e.errno() == Some(nix::errno::Errno::ENOTDIR) => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut swept = 0;
    for entry in parent.read_dir(MAX_ENTRIES)? {
        if is_temp_name(&entry.name) && parent.unlink(&entry.name).is_ok() {
            swept += 1;
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_by_the_next() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("marks");
        let (mut marks, left) = Marks::open(&path)?;
        assert!(left.is_empty());
        marks.note(b"")?;
        marks.note(b"a/\nb")?;
        marks.note(b"")?;
        drop(marks);
        let (mut marks, left) = Marks::open(&path)?;
        assert_eq!(left, [None, Some(RelPath::new("a/\nb")?)]);
        marks.wipe()?;
        marks.note(b"c")?;
        marks.clear()?;
        assert!(Marks::open(&path)?.1.is_empty());
        Ok(())
    }
}
