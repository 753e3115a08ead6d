//! A file that is not in place yet: written, given the attributes of what it replaces, then renamed.
//! Dropped without a rename it is removed.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::error::TargetError;
use super::metadata::Metadata;
use super::parent::Parent;
use crate::sys::xattr;

/// What a replaced file had and its replacement could not be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The old owner and group.
    pub owner: Option<(u32, u32)>,
    /// Names of extended attributes.
    pub attributes: Vec<Vec<u8>>,
}

impl Lost {
    pub fn is_empty(&self) -> bool {
        self.owner.is_none() && self.attributes.is_empty()
    }
}

#[derive(Debug)]
pub struct Temp {
    parent: Parent,
    name: Vec<u8>,
    file: Option<File>,
    /// Renamed away: there is nothing to remove.
    placed: bool,
}

impl Temp {
    pub(super) fn new(parent: Parent, name: Vec<u8>, file: File) -> Self {
        Self { parent, name, file: Some(file), placed: false }
    }

    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The open file, for whatever `Write` does not cover; None after `close`.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Gives it the owner, mode and extended attributes of the regular file `leaf` that it will replace.
    ///
    /// After the last write, which would clear set-id bits and file capabilities.
    pub fn keep_attributes_of(&self, leaf: &[u8], old: &Metadata) -> Result<Lost, TargetError> {
        let mut lost = Lost::default();
        let new = self.with("stat", |file| nix::sys::stat::fstat(file))?;
        if (new.st_uid, new.st_gid) != (old.uid, old.gid) {
            let (uid, gid) = (Uid::from_raw(old.uid), Gid::from_raw(old.gid));
            if self.with("change the owner of", |file| fchown(file, Some(uid), Some(gid))).is_err() {
                lost.owner = Some((old.uid, old.gid));
            }
        }
        // The app may hold a temp that was its own open, and may have put a link to a set-id file here: what gives
        // rights to whoever runs the file goes to a file only where the app gains none.
        let others = new.st_uid == old.uid || new.st_uid != self.parent.root().access().app().uid;
        let gives_rights = others && lost.owner.is_none() && old.links == 1;
        self.set_mode(if gives_rights { old.mode } else { old.mode & 0o1777 })?;
        lost.attributes = self.copy_attributes(leaf, gives_rights);
        Ok(lost)
    }

    /// Set-id bits and all; the umask has no say.
    pub fn set_mode(&self, mode: u32) -> Result<(), TargetError> {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        self.with("change the mode of", |file| fchmod(file, mode))
    }

    /// Seconds since 1970, nanoseconds.
    pub fn set_mtime(&self, mtime: (i64, u32)) -> Result<(), TargetError> {
        let mtime = TimeSpec::new(mtime.0, mtime.1.into());
        self.with("set the time of", |file| futimens(file, &TimeSpec::UTIME_OMIT, &mtime))
    }

    /// Closes the file and keeps the name: a batch may hold more temps than descriptors.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Takes the place of `leaf` in the same directory, at once for every reader. After an error the temp is
    /// still there: EBUSY (something is mounted on the name) leaves `write_in_place`.
    pub fn rename_over(&mut self, leaf: &[u8]) -> Result<(), TargetError> {
        self.parent.place(&self.name, leaf)?;
        self.placed = true;
        Ok(())
    }

    /// As `rename_over`; EEXIST when there is something.
    pub fn rename_noreplace(&mut self, leaf: &[u8]) -> Result<(), TargetError> {
        self.parent.rename_noreplace(&self.name, &self.parent, leaf)?;
        self.placed = true;
        Ok(())
    }

    /// Leaves it where it is; its name is all that remains (`is_temp_name` knows it).
    pub fn keep(mut self) -> Vec<u8> {
        self.placed = true;
        std::mem::take(&mut self.name)
    }

    /// Best effort; gives back the names that could not be copied.
    fn copy_attributes(&self, leaf: &[u8], gives_rights: bool) -> Vec<Vec<u8>> {
        let Ok((old, _)) = self.parent.open_read(leaf) else { return Vec::new() };
        let Ok(names) = xattr::list(&old) else { return Vec::new() };
        let names = names.split_inclusive(|b| *b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok());
        let wanted = names.filter(|n| is_kept(n.to_bytes()));
        let copied = wanted.map(|name| {
            if name == c"security.capability" && !gives_rights {
                return (name, Err(()));
            }
            let done = xattr::get(&old, name).map_err(|_| ()).and_then(|value| {
                self.with("set an attribute of", |f| xattr::set(f, name, &value)).map_err(|_| ())
            });
            (name, done)
        });
        copied.filter(|(_, done)| done.is_err()).map(|(name, _)| name.to_bytes().to_vec()).collect()
    }

    fn with<T>(
        &self,
        operation: &'static str,
        run: impl Fn(&File) -> Result<T, Errno>,
    ) -> Result<T, TargetError> {
        let error = |errno| TargetError::Call {
            operation,
            path: super::path::join(self.parent.name(), &self.name).as_slice().into(),
            errno,
        };
        let file = self.file.as_ref().ok_or_else(|| error(Errno::EBADF))?;
        self.parent.root().access().run(|_| run(file)).map_err(error)
    }
}

/// ACLs belong to the mode; `security.selinux` and its like are given by the system's policy.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability" || name == b"system.posix_acl_access"
}

impl Write for Temp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => Err(io::Error::other("the file is closed")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing can be done here about a directory that went away; the next attach looks for leftovers.
            let _ = self.parent.unlink(&self.name);
        }
    }
}
