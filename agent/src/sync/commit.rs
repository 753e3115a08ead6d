//! The commit: every file of a batch is written beside its destination first, then all take their places in
//! quick succession, deletes last. A reader sees the old bytes or the new, never a mix.
//!
//! Until the first rename a failure leaves the pod as it was. Where a rename cannot work (a file that is a mount
//! of its own: EBUSY) or a glob asks for it, the content is written in place, and the answer says so.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use devsync_protocol::message::{Committed, ProblemKind, RootId};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;
use nix::errno::Errno;

use super::batch::{Batch, Body, Staged, StagedFile};
use super::ledger::Record;
use super::root::{Root, RootError};
use super::stage::chain;
use crate::target::metadata::{Kind, Metadata};
use crate::target::temp::{Lost, Temp};

/// The sync roots of a session, by their numbers.
pub(crate) type Roots = [Option<Root>];

/// Carries out a batch, or takes back what was staged of it.
pub(crate) fn commit(roots: &mut Roots, mut batch: Batch) -> Committed {
    let stage_us = micros(batch.started);
    let began = Instant::now();
    let mut done = Committed { batch: batch.id, stage_us, ..Committed::default() };
    if !batch.failed {
        write_temps(roots, &mut batch);
    }
    if batch.failed {
        abandon(roots, batch, &mut done);
    } else {
        done.applied = true;
        done.changed = batch.made.len() as u32;
        apply(roots, batch, &mut done);
    }
    for root in roots.iter_mut().flatten() {
        root.forget();
        // What is not in the log is hashed again by the next session.
        let kept = root.ledger.save().and_then(|()| root.marks.clear());
        if let Err(error) = kept {
            tracing::warn!(%error, "the record of {} was not saved", devsync_protocol::path::display(root.dir.name()));
        }
    }
    done.commit_us = micros(began);
    done
}

/// Removes temporary files and the directories that were made for the batch.
pub(crate) fn abandon(roots: &mut Roots, batch: Batch, done: &mut Committed) {
    done.problems = batch.problems;
    drop(batch.staged);
    drop(batch.incoming);
    for (root, path) in batch.made.iter().rev() {
        let Some(root) = roots.get_mut(usize::from(*root)).and_then(Option::as_mut) else { continue };
        if root.parent(path).and_then(|(parent, leaf)| parent.rmdir(leaf)).is_ok() {
            root.ledger.remove(path);
        }
    }
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
    for file in staged.iter_mut().filter_map(|s| if let Staged::File(f) = s { Some(f) } else { None }) {
        let Some(root) = get(roots, file.root) else { continue };
        if let Err(error) = root.prepare(file) {
            let hint = if let RootError::Target(e) = &error { e.hint() } else { None };
            let cause = chain(&error);
            let hint = hint.or_else(|| super::stage::hint_for(&cause));
            batch.problem(file.root, &file.path.clone(), ProblemKind::Io, cause, hint);
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
        match staged {
            Staged::Delete { .. } => deletes.push(staged),
            Staged::Mode { .. } => modes.push(staged),
            Staged::Dir { .. } => carry_out(roots, staged, &mut batch, done),
            Staged::File(_) | Staged::Symlink { .. } => {
                let (id, path) = staged.place();
                let is_dir = get(roots, id)
                    .is_some_and(|root| matches!(root.look(path), Ok(Some(m)) if m.is_directory()));
                if is_dir { late.push(staged) } else { carry_out(roots, staged, &mut batch, done) }
            }
        }
    }
    deletes.sort_by(|a, b| b.place().cmp(&a.place()));
    for staged in deletes.into_iter().chain(late).chain(modes) {
        carry_out(roots, staged, &mut batch, done);
    }
    done.problems = batch.problems;
}

fn carry_out(roots: &mut Roots, staged: Staged, batch: &mut Batch, done: &mut Committed) {
    let (id, path) = staged.place();
    let path = path.clone();
    let Some(root) = get(roots, id) else { return };
    match root.carry_out(staged, done) {
        Ok(true) => done.changed += 1,
        Ok(false) => {}
        Err(error) => {
            let hint = if let RootError::Target(e) = &error { e.hint() } else { None };
            let kind = match &error {
                RootError::Kept(_) => ProblemKind::Kept,
                _ => ProblemKind::Io,
            };
            batch.problem(id, &path, kind, chain(&error), hint);
        }
    }
}

impl Root {
    /// Puts a file's content into a temporary file beside its destination, unless it will be written in place.
    fn prepare(&mut self, file: &mut StagedFile) -> Result<(), RootError> {
        if let Body::Memory(bytes) = &file.body {
            if self.wants_in_place(&file.path) && self.look(&file.path)?.is_some_and(|m| m.is_file()) {
                return Ok(());
            }
            file.body = Body::Temp(self.write_temp(&file.path, bytes)?);
        }
        let old = self.look(&file.path)?.filter(Metadata::is_file);
        let record = self.ledger.get(&file.path).cloned();
        let Body::Temp(temp) = &mut file.body else { return Ok(()) };
        let lost = dress(temp, file.path.name(), old.as_ref(), record.as_ref(), file.mode)?;
        if !lost.is_empty() {
            tracing::info!(path = %file.path, ?lost, "attributes of the replaced file could not be kept");
        }
        temp.close();
        Ok(())
    }

    /// Does one staged operation; false where there was nothing to do.
    fn carry_out(&mut self, staged: Staged, done: &mut Committed) -> Result<bool, RootError> {
        match staged {
            Staged::Dir { path, mode, .. } => self.place_dir(&path, mode),
            Staged::Symlink { path, target, .. } => self.place_symlink(&path, target),
            Staged::File(file) => self.place_file(file, done),
            Staged::Mode { path, mode, .. } => self.change_mode(&path, mode),
            Staged::Delete { path, .. } => self.delete(&path),
        }
    }

    fn place_dir(&mut self, path: &RelPath, mode: u16) -> Result<bool, RootError> {
        let node = Node::Dir { mode };
        match self.look(path)? {
            Some(found) if found.is_directory() => {
                let record = self.ledger.get(path).cloned();
                let sent = record.as_ref().map(|r| &r.node);
                if matches!(sent, Some(Node::Dir { mode: sent }) if *sent != mode) {
                    let (parent, leaf) = self.parent(path)?;
                    parent.chmod(leaf, mode.into())?;
                }
                self.record_now(path, node, record.is_some_and(|r| r.ours))?;
                return Ok(false);
            }
            Some(_) => {
                let (parent, leaf) = self.parent(path)?;
                parent.unlink(leaf)?;
                parent.mkdir(leaf, mode.into())?;
            }
            None => {
                let (parent, leaf) = self.parent(path)?;
                parent.mkdir(leaf, mode.into())?;
            }
        }
        self.forget();
        self.record_now(path, node, true)?;
        Ok(true)
    }

    fn place_symlink(&mut self, path: &RelPath, target: Vec<u8>) -> Result<bool, RootError> {
        self.make_room(path)?;
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

    fn place_file(&mut self, file: StagedFile, done: &mut Committed) -> Result<bool, RootError> {
        let StagedFile { path, mode, size, digest, body, .. } = file;
        self.make_room(&path)?;
        match body {
            Body::Temp(temp)
                if self.wants_in_place(&path) && self.look(&path)?.is_some_and(|m| m.is_file()) =>
            {
                self.copy_in_place(&path, &temp, done)?;
            }
            Body::Temp(temp) => self.place_temp(&path, temp, done)?,
            Body::Memory(bytes) => {
                let (parent, leaf) = self.parent(&path)?;
                parent.write_in_place(leaf, &mut &bytes[..])?;
                done.in_place.push(path.clone());
            }
        }
        self.record_now(&path, Node::File { mode, size, digest }, true)?;
        Ok(true)
    }

    fn place_temp(&mut self, path: &RelPath, temp: Temp, done: &mut Committed) -> Result<(), RootError> {
        if let Err(e) = self.parent(path)
            && e.is_not_found()
            && let Some(dir) = path.parent()
        {
            // The app removed the directory meanwhile.
            self.dir.mkdir_all(&dir, 0o755)?;
        }
        let (parent, leaf) = self.parent(path)?;
        match temp.parent().rename(temp.name(), parent, leaf) {
            Ok(()) => {
                temp.keep();
                Ok(())
            }
            Err(error) if matches!(error.errno(), Some(Errno::EBUSY | Errno::EXDEV)) => {
                self.copy_in_place(path, &temp, done)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Copies a temporary file's content over the file at `path`, which keeps its inode.
    fn copy_in_place(&mut self, path: &RelPath, temp: &Temp, done: &mut Committed) -> Result<(), RootError> {
        let (mut content, _) = temp.parent().open_read(temp.name())?;
        let (parent, leaf) = self.parent(path)?;
        parent.write_in_place(leaf, &mut content)?;
        done.in_place.push(path.clone());
        Ok(())
    }

    /// A directory stands where a file or link is to be: it goes, if the batch's deletes emptied it.
    fn make_room(&mut self, path: &RelPath) -> Result<(), RootError> {
        if self.look(path)?.is_some_and(|m| m.is_directory()) {
            let (parent, leaf) = self.parent(path)?;
            match parent.rmdir(leaf) {
                Err(e) if e.errno() == Some(Errno::ENOTEMPTY) => {
                    return Err(RootError::Kept(
                        "a directory with files that devsync did not write is there",
                    ));
                }
                other => other?,
            }
            self.forget();
            self.ledger.remove(path);
        }
        Ok(())
    }

    fn change_mode(&mut self, path: &RelPath, mode: u16) -> Result<bool, RootError> {
        let Some(metadata) = self.look(path)? else { return Ok(false) };
        if !matches!(metadata.kind, Kind::File | Kind::Directory) {
            return Ok(false);
        }
        let record = self.ledger.get(path).cloned();
        let wanted = mode_for(record.as_ref(), Some(&metadata), mode);
        if wanted != metadata.mode {
            let (parent, leaf) = self.parent(path)?;
            parent.chmod(leaf, wanted)?;
        }
        let (node, ours) = match record {
            Some(Record { node: Node::File { size, digest, .. }, ours, .. }) => {
                (Node::File { mode, size, digest }, ours)
            }
            Some(Record { ours, .. }) => (Node::Dir { mode }, ours),
            None if metadata.is_directory() => (Node::Dir { mode }, false),
            None => {
                let digest = self.digest(path)?;
                (Node::File { mode, size: metadata.size, digest }, false)
            }
        };
        self.record_now(path, node, ours)?;
        Ok(true)
    }

    fn delete(&mut self, path: &RelPath) -> Result<bool, RootError> {
        let Some(metadata) = self.look(path)? else {
            self.ledger.remove(path);
            return Ok(false);
        };
        let (parent, leaf) = self.parent(path)?;
        let deleted = if metadata.is_directory() { parent.rmdir(leaf) } else { parent.unlink(leaf) };
        match deleted {
            Err(e) if e.errno() == Some(Errno::ENOTEMPTY) => {
                self.ledger.remove(path);
                return Err(RootError::Kept("the directory holds files that devsync did not write"));
            }
            other => other?,
        }
        if metadata.is_directory() {
            self.forget();
        }
        self.ledger.remove(path);
        Ok(true)
    }
}

/// Gives a temporary file the attributes of what it replaces, and a modification time that is newer.
fn dress(
    temp: &Temp,
    leaf: &[u8],
    old: Option<&Metadata>,
    record: Option<&Record>,
    mode: u16,
) -> Result<Lost, RootError> {
    let Some(old) = old else {
        temp.set_mode(mode.into())?;
        return Ok(Lost::default());
    };
    let lost = temp.keep_attributes_of(leaf, old)?;
    let wanted = mode_for(record, Some(old), mode);
    if wanted != old.mode {
        temp.set_mode(wanted)?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    if old.mtime.0 >= now {
        // Reloaders compare whole seconds, and ignore what is not newer.
        temp.set_mtime((old.mtime.0 + 1, old.mtime.1))?;
    }
    Ok(lost)
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
        Some(Node::File { .. } | Node::Dir { .. }) => (old.mode & 0o7000) | mode,
        _ if old.is_directory() || (old.mode & 0o100 != 0) == (mode & 0o100 != 0) => old.mode,
        _ if mode & 0o100 != 0 => old.mode | ((old.mode & 0o444) >> 2),
        _ => old.mode & !0o111,
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
