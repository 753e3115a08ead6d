//! The commit: every file of a batch is written beside its destination first, then all take their places in
//! quick succession, deletes last. A reader sees the old bytes or the new, never a mix.
//!
//! Until the first rename a failure leaves the pod as it was. Where a rename cannot work (a file that is a mount
//! of its own: EBUSY) or a glob asks for it, the content is written in place, and the answer says so.

use std::os::unix::fs::MetadataExt;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use devsync_protocol::message::{Committed, ProblemKind, RootId};
use devsync_protocol::path::{self, RelPath};
use devsync_protocol::tree::Node;
use nix::errno::Errno;

use super::batch::{Batch, Body, Change, Dressed, Staged, StagedFile};
use super::ledger::{Record, Stamp};
use super::root::{Root, RootError, stamp};
use super::stage::{BLOCKED, chain, hint_for};
use crate::sys::ids::FsIdGuard;
use crate::target::metadata::{Kind, Metadata};
use crate::target::temp::Temp;

/// Bytes of paths that are told as written in place.
const MAX_IN_PLACE: usize = 512 * 1024;

/// The sync roots of a session, by their numbers.
pub(crate) type Roots = [Option<Root>];

/// Carries out a batch, or takes back what was staged of it.
pub(crate) fn commit(roots: &mut Roots, mut batch: Batch) -> Committed {
    let stage_us = micros(batch.started);
    let began = Instant::now();
    let mut done = Committed { batch: batch.id, stage_us, ..Committed::default() };
    let ids = enter(roots);
    if !batch.failed {
        write_temps(roots, &mut batch);
    }
    if batch.failed {
        drop(ids);
        abandon(roots, batch, &mut done);
    } else {
        done.applied = true;
        done.changed = batch.made.len() as u32;
        apply(roots, batch, &mut done);
        drop(ids);
        settle(roots);
    }
    done.commit_us = micros(began);
    done
}

/// Removes temporary files and the directories that were made for the batch.
pub(crate) fn abandon(roots: &mut Roots, mut batch: Batch, done: &mut Committed) {
    done.problems = batch.take_problems();
    drop(batch.staged);
    drop(batch.incoming);
    for (root, path) in batch.made.iter().rev() {
        let Some(root) = get(roots, *root) else { continue };
        root.forget();
        if root.parent(path).and_then(|(parent, leaf)| parent.rmdir(leaf)).is_ok() {
            root.ledger.remove(path);
        }
    }
    settle(roots);
}

/// Saves what is known now. With the agent's own ids: its directory is not the app's.
fn settle(roots: &mut Roots) {
    for root in roots.iter_mut().flatten() {
        root.forget();
        // What is not in the log is hashed again by the next session.
        if let Err(error) = root.ledger.save().and_then(|()| root.marks.clear()) {
            tracing::warn!(%error, "the record of {} was not saved", path::display(root.dir.name()));
        }
    }
}

/// The ids that files are touched with: all roots are the same app's. Where they cannot be taken, each operation
/// says so itself.
fn enter(roots: &Roots) -> Option<FsIdGuard> {
    roots.iter().flatten().next().and_then(|root| root.dir.enter().ok())
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

fn get(roots: &mut Roots, id: RootId) -> Option<&mut Root> {
    roots.get_mut(usize::from(id)).and_then(Option::as_mut)
}

/// Puts every content into a temporary file, with the attributes that it will have.
fn write_temps(roots: &mut Roots, batch: &mut Batch) {
    let mut staged = std::mem::take(&mut batch.staged);
    for one in &mut staged {
        let (Change::File(file), Some(root)) = (&mut one.change, get(roots, one.root)) else { continue };
        if let Err(error) = root.prepare(batch, &one.path, file) {
            let cause = chain(&error);
            let hint = error.hint().or_else(|| hint_for(&cause));
            batch.problem(one.root, &one.path, ProblemKind::Io, cause, hint);
            break;
        }
    }
    batch.staged = staged;
}

/// The order in which nothing is missing meanwhile: directories that replace files, then files and links,
/// deletes from the deepest up, files that replace directories, modes.
fn apply(roots: &mut Roots, mut batch: Batch, done: &mut Committed) {
    let mut late = Vec::new();
    let mut deletes = Vec::new();
    let mut modes = Vec::new();
    for staged in std::mem::take(&mut batch.staged) {
        match &staged.change {
            Change::Delete => deletes.push(staged),
            Change::Mode { .. } => modes.push(staged),
            Change::Dir { .. } => carry_out(roots, staged, &mut batch, done),
            Change::File(_) | Change::Symlink { .. } => {
                let is_dir = get(roots, staged.root)
                    .is_some_and(|root| matches!(root.look(&staged.path), Ok(Some(m)) if m.is_directory()));
                if is_dir { late.push(staged) } else { carry_out(roots, staged, &mut batch, done) }
            }
        }
    }
    deletes.sort_by(|a, b| (b.root, &b.path).cmp(&(a.root, &a.path)));
    for staged in deletes.into_iter().chain(late).chain(modes) {
        carry_out(roots, staged, &mut batch, done);
    }
    done.problems = batch.take_problems();
    let mut bytes = 0;
    done.in_place.retain(|path| {
        bytes += path.len() + 4;
        bytes <= MAX_IN_PLACE
    });
}

fn carry_out(roots: &mut Roots, staged: Staged, batch: &mut Batch, done: &mut Committed) {
    let (id, path) = (staged.root, staged.path.clone());
    let Some(root) = get(roots, id) else { return };
    if batch.is_blocked(id, &path) {
        return batch.problem(id, &path, ProblemKind::Kept, BLOCKED, None);
    }
    match root.carry_out(staged, done) {
        Ok(true) => done.changed += 1,
        Ok(false) => {}
        Err(error) => {
            batch.blocked.insert((id, path.clone()));
            match &error {
                RootError::Changed => batch.conflict(id, &path),
                RootError::Kept(_) => batch.problem(id, &path, ProblemKind::Kept, chain(&error), None),
                _ => {
                    let cause = chain(&error);
                    let hint = error.hint().or_else(|| hint_for(&cause));
                    batch.problem(id, &path, ProblemKind::Io, cause, hint);
                }
            }
        }
    }
}

impl Root {
    /// Puts a file's content into a temporary file beside its destination, unless it will be written in place.
    fn prepare(&mut self, batch: &Batch, path: &RelPath, file: &mut StagedFile) -> Result<(), RootError> {
        let Body::Memory(bytes) = &file.body else { return Ok(()) };
        let in_place = self.wants_in_place(path) && batch.replaced_above(self.id, path).is_none();
        if in_place && self.look(path)?.is_some_and(|m| m.is_file()) {
            return Ok(());
        }
        file.body = Body::Temp(self.write_temp(batch, path, file.mode, bytes)?);
        Ok(())
    }

    /// Gives a temporary file the attributes that it will have in its place, and closes it: a batch may hold
    /// more files than there are descriptors.
    pub(crate) fn dress(
        &mut self,
        batch: &Batch,
        mut temp: Temp,
        path: &RelPath,
        mode: u16,
    ) -> Result<Dressed, RootError> {
        let old = match batch.replaced_above(self.id, path) {
            Some(_) => None,
            None => self.look(path)?.filter(Metadata::is_file),
        };
        let wanted = mode_for(self.ledger.get(path), old.as_ref(), mode);
        match &old {
            None => temp.set_mode(wanted)?,
            Some(old) => {
                // The temporary file lies beside it, unless its directory is missing, and then there is no old one.
                let lost = temp.keep_attributes_of(path.name(), old)?;
                if !lost.is_empty() {
                    tracing::info!(%path, ?lost, "attributes of the replaced file could not be kept");
                }
                if wanted != old.mode {
                    temp.set_mode(wanted)?;
                }
                make_newer(&temp, old)?;
            }
        }
        let stamp = own_stamp(&temp).map_err(|source| RootError::Read { path: path.to_string(), source })?;
        temp.close();
        Ok(Dressed { temp, stamp })
    }

    /// Does one staged operation; false where there was nothing to do.
    fn carry_out(&mut self, staged: Staged, done: &mut Committed) -> Result<bool, RootError> {
        let Staged { path, expected, change, .. } = staged;
        let found = self.look(&path)?;
        if let (Some(expected), Some(found)) = (expected, &found)
            && stamp(found) != expected
        {
            return Err(RootError::Changed);
        }
        match change {
            Change::Dir { mode } => self.place_dir(&path, found, mode),
            Change::Symlink { target } => self.place_symlink(&path, found, target),
            Change::File(file) => self.place_file(&path, found, file, done),
            Change::Mode { mode } => self.change_mode(&path, found, mode),
            Change::Delete => self.delete(&path, found),
        }
    }

    fn place_dir(&mut self, path: &RelPath, found: Option<Metadata>, mode: u16) -> Result<bool, RootError> {
        let node = Node::Dir { mode };
        if let Some(found) = found.filter(Metadata::is_directory) {
            let record = self.ledger.get(path).cloned();
            self.follow_mode(path, &found, record.as_ref(), mode)?;
            self.record_now(path, node, record.is_some_and(|r| r.ours))?;
            return Ok(false);
        }
        let (parent, leaf) = self.parent(path)?;
        if found.is_some() {
            parent.unlink(leaf)?;
        }
        match parent.mkdir(leaf, mode.into()) {
            Err(e) if e.errno() == Some(Errno::EEXIST) => return Err(RootError::Changed),
            made => made?,
        }
        self.forget();
        self.record_now(path, node, true)?;
        Ok(true)
    }

    fn place_symlink(
        &mut self,
        path: &RelPath,
        found: Option<Metadata>,
        target: Vec<u8>,
    ) -> Result<bool, RootError> {
        self.make_room(path, found.as_ref())?;
        self.note_temp_in(path.parent().as_ref())?;
        let (parent, leaf) = self.parent(path)?;
        // A link cannot be changed: a new one takes its place.
        let temp = crate::target::parent::temp_name();
        parent.symlink(&target, temp.as_bytes())?;
        if let Err(error) = parent.rename(temp.as_bytes(), parent, leaf) {
            parent.unlink(temp.as_bytes()).ok();
            return Err(error.into());
        }
        self.record_now(path, Node::Symlink { target }, true)?;
        Ok(true)
    }

    fn place_file(
        &mut self,
        path: &RelPath,
        found: Option<Metadata>,
        file: StagedFile,
        done: &mut Committed,
    ) -> Result<bool, RootError> {
        let StagedFile { mode, size, digest, body } = file;
        self.make_room(path, found.as_ref())?;
        let node = Node::File { mode, size, digest };
        let found = found.filter(Metadata::is_file);
        match body {
            Body::Temp(Dressed { temp, stamp }) => {
                let in_place = found.is_some() && self.wants_in_place(path);
                if !in_place && self.place_temp(path, &temp)? {
                    temp.keep();
                    self.record_placed(path, node, stamp)?;
                    return Ok(true);
                }
                // Nobody but a rename lets the old version go at once; the temporary file goes when it is copied.
                let (mut content, _) = temp.parent().open_read(temp.name())?;
                self.write_in_place(path, &mut content)?;
            }
            Body::Memory(bytes) => self.write_in_place(path, &mut &bytes[..])?,
        }
        done.in_place.push(path.clone());
        if let Some(found) = found {
            let record = self.ledger.get(path).cloned();
            self.follow_mode(path, &found, record.as_ref(), mode)?;
        }
        self.record_now(path, node, true)?;
        Ok(true)
    }

    /// Renames a temporary file to its place; false where only writing in place can work.
    fn place_temp(&mut self, path: &RelPath, temp: &Temp) -> Result<bool, RootError> {
        if let Err(e) = self.parent(path)
            && e.is_not_found()
            && let Some(dir) = path.parent()
        {
            // The app removed the directory meanwhile.
            self.dir.mkdir_all(&dir, 0o755)?;
        }
        let (parent, leaf) = self.parent(path)?;
        match temp.parent().rename(temp.name(), parent, leaf) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.errno(), Some(Errno::EBUSY | Errno::EXDEV)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_in_place(&mut self, path: &RelPath, content: &mut impl std::io::Read) -> Result<(), RootError> {
        let (parent, leaf) = self.parent(path)?;
        parent.write_in_place(leaf, content)?;
        Ok(())
    }

    /// Puts a file that was just renamed into the ledger. Where the app changed it in that moment its stamp is
    /// made one that never fits, so that the change is seen.
    fn record_placed(&mut self, path: &RelPath, node: Node, placed: Stamp) -> Result<(), RootError> {
        let Some(metadata) = self.look(path)? else { return Ok(()) };
        let now = stamp(&metadata);
        // A rename changes the time of the inode and nothing else.
        let untouched = Stamp { ctime_ns: now.ctime_ns, ..placed } == now;
        let stamp = if untouched { now } else { Stamp { ino: 0, ..placed } };
        self.ledger.put(path.clone(), Record { node, stamp, ours: true });
        Ok(())
    }

    /// A directory stands where a file or link is to be: it goes, if the batch's deletes emptied it.
    fn make_room(&mut self, path: &RelPath, found: Option<&Metadata>) -> Result<(), RootError> {
        if !found.is_some_and(Metadata::is_directory) {
            return Ok(());
        }
        let (parent, leaf) = self.parent(path)?;
        match parent.rmdir(leaf) {
            Err(e) if e.errno() == Some(Errno::ENOTEMPTY) => {
                return Err(RootError::Kept("a directory with files that devsync did not write is there"));
            }
            other => other?,
        }
        self.forget();
        self.ledger.remove(path);
        Ok(())
    }

    /// Changes the pod's permission bits where the laptop's ask for it.
    fn follow_mode(
        &mut self,
        path: &RelPath,
        found: &Metadata,
        record: Option<&Record>,
        mode: u16,
    ) -> Result<(), RootError> {
        let wanted = mode_for(record, Some(found), mode);
        if wanted != found.mode {
            let (parent, leaf) = self.parent(path)?;
            parent.chmod(leaf, wanted)?;
        }
        Ok(())
    }

    fn change_mode(&mut self, path: &RelPath, found: Option<Metadata>, mode: u16) -> Result<bool, RootError> {
        let Some(found) = found.filter(|f| matches!(f.kind, Kind::File | Kind::Directory)) else {
            return Ok(false);
        };
        let record = self.ledger.get(path).cloned();
        let ours = record.as_ref().is_some_and(|r| r.ours);
        let node = match &record {
            _ if found.is_directory() => Node::Dir { mode },
            Some(Record { node: Node::File { size, digest, .. }, stamp: known, .. })
                if *known == stamp(&found) =>
            {
                Node::File { mode, size: *size, digest: *digest }
            }
            _ => Node::File { mode, size: found.size, digest: self.digest(path)? },
        };
        self.follow_mode(path, &found, record.as_ref(), mode)?;
        self.record_now(path, node, ours)?;
        Ok(true)
    }

    fn delete(&mut self, path: &RelPath, found: Option<Metadata>) -> Result<bool, RootError> {
        let Some(found) = found else {
            self.ledger.remove(path);
            return Ok(false);
        };
        let (parent, leaf) = self.parent(path)?;
        let deleted = if found.is_directory() { parent.rmdir(leaf) } else { parent.unlink(leaf) };
        match deleted {
            Err(e) if e.errno() == Some(Errno::ENOTEMPTY) => {
                self.ledger.remove(path);
                return Err(RootError::Kept("the directory holds files that devsync did not write"));
            }
            other => other?,
        }
        if found.is_directory() {
            self.forget();
        }
        self.ledger.remove(path);
        Ok(true)
    }
}

/// Gives a temporary file a modification time that is newer than that of what it replaces.
fn make_newer(temp: &Temp, old: &Metadata) -> Result<(), RootError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    if old.mtime.0 >= now {
        // Reloaders compare whole seconds, and ignore what is not newer.
        temp.set_mtime((old.mtime.0 + 1, old.mtime.1))?;
    }
    Ok(())
}

/// What identifies an open temporary file.
fn own_stamp(temp: &Temp) -> std::io::Result<Stamp> {
    let file = temp.file().ok_or_else(|| std::io::Error::other("the file is closed"))?;
    let metadata = file.metadata()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok(Stamp {
        ino: metadata.ino(),
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        mtime_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// The permission bits that a file gets: a new one the laptop's; an old one keeps what the pod has, but follows
/// the laptop where its bits changed since they were sent, and in being executable.
fn mode_for(record: Option<&Record>, old: Option<&Metadata>, mode: u16) -> u32 {
    let mode = u32::from(mode);
    let Some(old) = old else { return mode };
    match record.map(|r| &r.node) {
        Some(Node::File { mode: sent, .. } | Node::Dir { mode: sent }) if u32::from(*sent) == mode => {
            old.mode
        }
        Some(Node::Dir { .. }) => (old.mode & 0o7000) | mode,
        Some(Node::File { .. }) => mode,
        _ if old.is_directory() || (old.mode & 0o100 != 0) == (mode & 0o100 != 0) => old.mode,
        _ if mode & 0o100 != 0 => (old.mode & 0o1777) | ((old.mode & 0o444) >> 2),
        _ => old.mode & 0o1666,
    }
}

#[cfg(test)]
mod tests {
    use devsync_protocol::digest::Digest;

    use super::*;
    use crate::sync::ledger::Stamp;

    fn metadata(mode: u32) -> Metadata {
        Metadata {
            kind: Kind::File,
            mode,
            size: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            ctime: (0, 0),
            links: 1,
            device: 0,
            inode: 0,
        }
    }

    fn sent(mode: u16) -> Record {
        let stamp = Stamp { ino: 0, size: 0, mode: 0, mtime_ns: 0, ctime_ns: 0 };
        Record { node: Node::File { mode, size: 0, digest: Digest::of(b"") }, stamp, ours: true }
    }

    #[test]
    fn the_image_decides_the_mode_and_the_laptop_whether_it_is_executable() {
        let (image, script) = (metadata(0o640), metadata(0o755));
        assert_eq!(mode_for(None, None, 0o600), 0o600);
        assert_eq!(mode_for(None, Some(&image), 0o664), 0o640);
        assert_eq!(mode_for(None, Some(&image), 0o775), 0o750);
        assert_eq!(mode_for(None, Some(&script), 0o664), 0o644);
    }

    #[test]
    fn a_mode_that_the_laptop_changes_is_followed() {
        let pod = metadata(0o640);
        assert_eq!(mode_for(Some(&sent(0o644)), Some(&pod), 0o644), 0o640);
        assert_eq!(mode_for(Some(&sent(0o644)), Some(&pod), 0o600), 0o600);
    }
}
