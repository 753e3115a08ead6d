//! Each request of SFTP version 3, done and answered. Whatever it names is reached through the app's `SyncRoot`.

use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;
use tokio_util::bytes::Bytes;

use super::attributes::{self, Wanted, long_name};
use super::handles::{Handles, Open, OpenFile};
use super::listing::DirectoryPages;
use super::status::{self, Refused};
use super::wire::{self, Fields, Packet, Reader};
use super::{Answer, SftpError, Tally, extensions, paths};
use crate::target::entry::Entry;
use crate::target::error::TargetError;
use crate::target::metadata::{Kind, Metadata};
use crate::target::parent::Parent;
use crate::target::root::SyncRoot;

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

/// Modes of what a client makes without saying one, as with a umask of 022.
const NEW_FILE: u32 = 0o644;
const NEW_DIRECTORY: u32 = 0o755;

pub(super) struct Server {
    pub(super) files: SyncRoot,
    pub(super) home: Vec<u8>,
    pub(super) handles: Handles,
    pub(super) tally: Tally,
}

impl Server {
    pub(super) fn new(files: SyncRoot, home: Vec<u8>) -> Self {
        Self { files, home, handles: Handles::default(), tally: Tally::default() }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn run(&mut self, reader: &mut Reader<'_>, answer: &mut Answer<'_>) -> Result<(), SftpError> {
        let Some(mut hello) = reader.next()? else { return Ok(()) };
        if hello.byte() != Ok(wire::INIT) {
            return Err(SftpError::NoInit);
        }
        answer(extensions::version())?;
        while let Some(mut fields) = reader.next()? {
            let kind = fields.byte().unwrap_or(0);
            // Without an id there is nobody to answer.
            let Ok(id) = fields.u32() else { continue };
            let done = self.request(kind, id, fields).unwrap_or_else(|refused| refused.packet(id));
            answer(done)?;
        }
        Ok(())
    }

    fn request(&mut self, kind: u8, id: u32, mut fields: Fields<'_>) -> Result<Bytes, Refused> {
        let fields = &mut fields;
        match kind {
            wire::READ => return self.read(id, fields),
            wire::READDIR => return self.handles.directory(fields.string()?)?.next(id),
            wire::OPEN => return self.open(id, fields),
            wire::OPENDIR => return self.open_directory(id, fields),
            wire::LSTAT => return Ok(attributes_of(id, &self.lstat(fields.string()?)?)),
            wire::STAT => {
                let path = self.plain(fields.string()?);
                return Ok(attributes_of(id, &self.files.followed(&path)?.metadata()));
            }
            wire::FSTAT => return self.fstat(id, fields.string()?),
            wire::REALPATH => {
                let path = paths::absolute(&self.plain(fields.string()?));
                return Ok(name(id, &path));
            }
            wire::READLINK => {
                let path = self.plain(fields.string()?);
                return Ok(name(id, &self.files.entry(&path)?.link()?));
            }
            wire::EXTENDED => return extensions::request(self, id, fields),
            wire::CLOSE => self.handles.close(fields.string()?)?,
            wire::WRITE => self.write(fields)?,
            wire::SETSTAT => {
                let path = self.plain(fields.string()?);
                let entry = self.files.followed(&path)?;
                self.set(&entry, &Wanted::read(fields)?)?;
            }
            wire::FSETSTAT => self.fsetstat(fields)?,
            wire::REMOVE => self.change(fields, Parent::unlink)?,
            wire::RMDIR => self.change(fields, Parent::rmdir)?,
            wire::MKDIR => self.make_directory(fields)?,
            wire::RENAME => self.rename(fields, Parent::rename_noreplace)?,
            wire::SYMLINK => self.symlink(fields)?,
            _ => return Err(Refused::Unsupported),
        }
        Ok(status::ok(id))
    }

    pub(super) fn plain(&self, path: &[u8]) -> Vec<u8> {
        paths::plain(&self.home, path)
    }

    fn lstat(&self, path: &[u8]) -> Result<Metadata, TargetError> {
        let path = self.plain(path);
        self.files.entry(&path).map(|entry| entry.metadata())
    }

    fn fstat(&mut self, id: u32, handle: &[u8]) -> Result<Bytes, Refused> {
        let found = match self.handles.file(handle) {
            Ok(open) => nix::sys::stat::fstat(&open.file).map_err(std::io::Error::from)?.into(),
            Err(_) => self.handles.directory(handle)?.directory().own_metadata()?,
        };
        Ok(attributes_of(id, &found))
    }

    fn open(&mut self, id: u32, fields: &mut Fields<'_>) -> Result<Bytes, Refused> {
        let path = self.plain(fields.string()?);
        let flags = fields.u32()?;
        let wanted = Wanted::read(fields)?;
        self.handles.has_room()?;
        let writes = flags & (WRITE | APPEND) != 0;
        let open = if flags & CREATE != 0 {
            self.open_or_create(&path, flags, wanted.mode.unwrap_or(NEW_FILE))?
        } else {
            self.open_existing(&path, flags)?
        };
        self.tally.opened_to_write += u64::from(writes);
        let handle = self.handles.add(Open::File(Box::new(open)));
        Ok(Packet::answer(wire::HANDLE, id).string(&handle).finish())
    }

    fn open_existing(&self, path: &[u8], flags: u32) -> Result<OpenFile, TargetError> {
        let entry = self.files.followed(path)?;
        let mut how = match (flags & READ != 0, flags & (WRITE | APPEND) != 0) {
            (true, true) => OFlag::O_RDWR,
            (false, true) => OFlag::O_WRONLY,
            _ => OFlag::O_RDONLY,
        };
        how.set(OFlag::O_APPEND, flags & APPEND != 0);
        how.set(OFlag::O_TRUNC, flags & TRUNCATE != 0);
        let file = entry.open(how)?;
        Ok(OpenFile { file, entry, append: flags & APPEND != 0 })
    }

    fn open_or_create(&self, path: &[u8], flags: u32, mode: u32) -> Result<OpenFile, Refused> {
        if flags & EXCLUSIVE == 0 {
            match self.open_existing(path, flags) {
                Err(error) if error.is_not_found() => {}
                opened => return Ok(opened?),
            }
        }
        let (directory, leaf) = self.files.parent(path)?;
        let append = flags & APPEND != 0;
        let file = directory.create_file(leaf, mode, append)?;
        // By the file that was made, and not by its name.
        let entry = Entry::of_file(&self.files, &file, path)?;
        Ok(OpenFile { file, entry, append })
    }

    fn open_directory(&mut self, id: u32, fields: &mut Fields<'_>) -> Result<Bytes, Refused> {
        let path = self.plain(fields.string()?);
        self.handles.has_room()?;
        let pages = DirectoryPages::open(&self.files.directory(&path)?)?;
        let handle = self.handles.add(Open::Directory(Box::new(pages)));
        Ok(Packet::answer(wire::HANDLE, id).string(&handle).finish())
    }

    fn read(&mut self, id: u32, fields: &mut Fields<'_>) -> Result<Bytes, Refused> {
        let open = self.handles.file(fields.string()?)?;
        let (offset, length) = (fields.u64()?, fields.u32()?);
        let data = Packet::data(id, length, |room| {
            let mut used = 0;
            // A short read would make the client ask again for the rest.
            while let Some(rest) = room.get_mut(used..).filter(|rest| !rest.is_empty()) {
                match open.file.read_at(rest, offset.saturating_add(used as u64)) {
                    Ok(0) => break,
                    Ok(n) => used += n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) if used == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(used)
        })?;
        let data = data.ok_or(Refused::End)?;
        self.tally.read += data.len() as u64;
        Ok(data)
    }

    fn write(&mut self, fields: &mut Fields<'_>) -> Result<(), Refused> {
        let open = self.handles.file(fields.string()?)?;
        let (offset, data) = (fields.u64()?, fields.string()?);
        if open.append {
            std::io::Write::write_all(&mut &open.file, data)?;
        } else {
            open.file.write_all_at(data, offset)?;
        }
        self.tally.written += data.len() as u64;
        Ok(())
    }

    /// The size first: a write would undo a time, and clear set-id bits. The mode after the owner, for the same reason.
    pub(super) fn set(&mut self, entry: &Entry, wanted: &Wanted) -> Result<(), Refused> {
        if let Some(size) = wanted.size {
            entry.truncate(size)?;
        }
        if let Some((uid, gid)) = wanted.owner {
            entry.set_owner(uid, gid)?;
        }
        if let Some(mode) = wanted.mode {
            entry.set_mode(mode)?;
        }
        if let Some((accessed, modified)) = wanted.times {
            entry.set_times(Some(accessed), Some(modified))?;
        }
        self.tally.changed += 1;
        Ok(())
    }

    fn fsetstat(&mut self, fields: &mut Fields<'_>) -> Result<(), Refused> {
        let open = self.handles.file(fields.string()?)?;
        let mut wanted = Wanted::read(fields)?;
        // Through the descriptor: it may be open for writing where it could not be opened again.
        if let Some(size) = wanted.size.take() {
            open.file.set_len(size)?;
        }
        let entry = open.entry.again()?;
        self.set(&entry, &wanted)
    }

    fn change(
        &mut self,
        fields: &mut Fields<'_>,
        change: impl Fn(&Parent, &[u8]) -> Result<(), TargetError>,
    ) -> Result<(), Refused> {
        let path = self.plain(fields.string()?);
        let (directory, leaf) = self.files.parent(&path)?;
        change(&directory, leaf)?;
        self.tally.changed += 1;
        Ok(())
    }

    fn make_directory(&mut self, fields: &mut Fields<'_>) -> Result<(), Refused> {
        let path = self.plain(fields.string()?);
        let mode = Wanted::read(fields)?.mode.unwrap_or(NEW_DIRECTORY);
        let (directory, leaf) = self.files.parent(&path)?;
        directory.mkdir(leaf, mode)?;
        self.tally.changed += 1;
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        fields: &mut Fields<'_>,
        rename: impl Fn(&Parent, &[u8], &Parent, &[u8]) -> Result<(), TargetError>,
    ) -> Result<(), Refused> {
        let (from, to) = (self.plain(fields.string()?), self.plain(fields.string()?));
        let (from_dir, from) = self.files.parent(&from)?;
        let (to_dir, to) = self.files.parent(&to)?;
        rename(&from_dir, from, &to_dir, to)?;
        self.tally.changed += 1;
        Ok(())
    }

    /// OpenSSH's clients and servers have the two names the other way round than the draft says.
    fn symlink(&mut self, fields: &mut Fields<'_>) -> Result<(), Refused> {
        let says = fields.string()?;
        let path = self.plain(fields.string()?);
        let (directory, leaf) = self.files.parent(&path)?;
        directory.symlink(says, leaf)?;
        self.tally.changed += 1;
        Ok(())
    }
}

fn attributes_of(id: u32, found: &Metadata) -> Bytes {
    attributes::write(Packet::answer(wire::ATTRS, id), found).finish()
}

/// One name, whose attributes nobody looks at.
pub(super) fn name(id: u32, path: &[u8]) -> Bytes {
    let nothing = Metadata {
        kind: Kind::File,
        mode: 0,
        size: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        ctime: (0, 0),
        links: 0,
        device: 0,
        inode: 0,
    };
    let packet = Packet::answer(wire::NAME, id).u32(1).string(path).string(&long_name(path, &nothing));
    packet.u32(0).finish()
}
