//! The ledger: what devsync wrote or found below a sync root, so that only its own files are deleted,
//! changes made in the pod are seen, and an unchanged tree is compared without reading it.
//!
//! Kept in memory and as a log in the agent's state directory: one record for each change, compacted when it is
//! opened. A log that cannot be read counts as empty, which costs hashing and never data.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use serde::{Deserialize, Serialize};

/// Changes when the layout of the log does.
const HEADER: &[u8] = b"devsync-ledger-1\n";
/// A log longer than this is not read, in bytes.
const MAX_LOG: u64 = 1 << 30;

/// What identifies one version of a file in the pod without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime_ns: i128,
    pub(crate) ctime_ns: i128,
}

/// One managed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// As the laptop has it: its permission bits may differ from the pod's, which keep what the image had.
    pub(crate) node: Node,
    /// As the pod had it when this was recorded.
    pub(crate) stamp: Stamp,
    /// True where devsync put it there; false where the pod had the same already.
    pub(crate) ours: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: RelPath,
    record: Option<Record>,
}

/// The records of one sync root.
#[derive(Debug)]
pub(crate) struct Ledger {
    records: BTreeMap<RelPath, Record>,
    path: PathBuf,
    /// `None` where the record belongs to another session.
    log: Option<File>,
    /// Encoded changes that are not in the log yet.
    pending: Vec<u8>,
}

impl Ledger {
    /// Reads and compacts the log at `path`, or begins a new one.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let records = read_log(&path).unwrap_or_default();
        let log = write_log(&path, &records)?;
        Ok(Self { records, path, log: Some(log), pending: Vec::new() })
    }

    /// Reads the log at `path` as it is now; changes stay in memory.
    pub(crate) fn read(path: PathBuf) -> Self {
        let records = read_log(&path).unwrap_or_default();
        Self { records, path, log: None, pending: Vec::new() }
    }

    pub(crate) fn get(&self, path: &RelPath) -> Option<&Record> {
        self.records.get(path)
    }

    pub(crate) fn records(&self) -> &BTreeMap<RelPath, Record> {
        &self.records
    }

    pub(crate) fn put(&mut self, path: RelPath, record: Record) {
        self.note(&path, Some(&record));
        self.records.insert(path, record);
    }

    pub(crate) fn remove(&mut self, path: &RelPath) {
        if self.records.remove(path).is_some() {
            self.note(path, None);
        }
    }

    fn note(&mut self, path: &RelPath, record: Option<&Record>) {
        if self.log.is_none() {
            return;
        }
        let line = Line { path: path.clone(), record: record.cloned() };
        if let Ok(bytes) = postcard::to_allocvec(&line) {
            self.pending.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            self.pending.extend_from_slice(&bytes);
        }
    }

    /// Writes the changes so far to the log.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let written = log.write_all(&self.pending);
        self.pending.clear();
        if written.is_err() {
            // Half a line would hide everything after it: begin again from what is known.
            *log = write_log(&self.path, &self.records)?;
        }
        Ok(())
    }
}

fn read_log(path: &Path) -> Option<BTreeMap<RelPath, Record>> {
    let mut file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > MAX_LOG {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let mut rest = bytes.strip_prefix(HEADER)?;
    let mut records = BTreeMap::new();
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let Some(line) = tail.get(..u32::from_le_bytes(*len) as usize) else { break };
        let Ok(Line { path, record }) = postcard::from_bytes(line) else { break };
        match record {
            Some(record) => records.insert(path, record),
            None => records.remove(&path),
        };
        rest = &tail[line.len()..];
    }
    Some(records)
}

/// Replaces the log by one that holds just `records`, and leaves it open for appending.
fn write_log(path: &Path, records: &BTreeMap<RelPath, Record>) -> io::Result<File> {
    let mut bytes = HEADER.to_vec();
    for (path, record) in records {
        let line = Line { path: path.clone(), record: Some(record.clone()) };
        let line = postcard::to_allocvec(&line).map_err(io::Error::other)?;
        bytes.extend_from_slice(&(line.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&line);
    }
    let temp = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(&bytes)?;
    std::fs::rename(&temp, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use devsync_protocol::digest::Digest;

    use super::*;

    fn record(content: &str) -> Record {
        let size = content.len() as u64;
        Record {
            node: Node::File { mode: 0o644, size, digest: Digest::of(content.as_bytes()) },
            stamp: Stamp { ino: 1, size, mode: 0o100644, mtime_ns: 5, ctime_ns: 6 },
            ours: true,
        }
    }

    #[test]
    fn comes_back_after_a_restart_of_the_agent() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(path.clone())?;
        ledger.put(RelPath::new("a")?, record("1"));
        ledger.put(RelPath::new("b")?, record("2"));
        ledger.remove(&RelPath::new("a")?);
        ledger.save()?;
        drop(ledger);
        let again = Ledger::open(path)?;
        assert_eq!(again.records().len(), 1);
        assert_eq!(again.get(&RelPath::new("b")?), Some(&record("2")));
        Ok(())
    }

    #[test]
    fn one_who_only_looks_leaves_the_log_to_the_one_who_writes() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("ledger");
        let mut writer = Ledger::open(path.clone())?;
        writer.put(RelPath::new("a")?, record("1"));
        writer.save()?;
        let mut looker = Ledger::read(path.clone());
        assert_eq!(looker.get(&RelPath::new("a")?), Some(&record("1")));
        looker.put(RelPath::new("b")?, record("2"));
        looker.save()?;
        writer.put(RelPath::new("c")?, record("3"));
        writer.save()?;
        let again = Ledger::open(path)?;
        assert_eq!(again.records().keys().map(ToString::to_string).collect::<Vec<_>>(), ["a", "c"]);
        Ok(())
    }

    #[test]
    fn a_torn_log_loses_only_its_tail() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("ledger");
        let mut ledger = Ledger::open(path.clone())?;
        for name in ["a", "b", "c"] {
            ledger.put(RelPath::new(name)?, record(name));
        }
        ledger.save()?;
        let bytes = std::fs::read(&path)?;
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut])?;
            let records = read_log(&path).unwrap_or_default();
            assert!(records.len() < 3);
            assert!(records.iter().all(|(path, r)| *r == record(&path.to_string())));
        }
        Ok(())
    }
}
