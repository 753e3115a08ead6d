//! New entries: temps, directories, symlinks. With the agent's own ids they are given to the directory's owner,
//! or the app could not write beside them.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::super::access::Hand;
use super::super::error::TargetError;
use super::super::path;
use super::super::temp::Temp;
use super::Parent;
use crate::sys::ids::FsIds;
use crate::sys::proc;

const TEMP_PREFIX: &str = ".devsync-";

/// Whether a name is one that `create_temp` makes: what a crashed agent left behind.
pub fn is_temp_name(leaf: &[u8]) -> bool {
    leaf.strip_prefix(TEMP_PREFIX.as_bytes()).is_some_and(|rest| {
        rest.len() == 16 && rest.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
    })
}

/// Fixed length, no extension: reloaders that watch the directory react to any name they know.
pub(crate) fn temp_name() -> String {
    // Each state has keys of its own from the system's random source; O_EXCL settles the rest.
    format!("{TEMP_PREFIX}{:016x}", RandomState::new().hash_one(0))
}

impl Parent {
    /// A new file, mode 0600, in this directory; it is removed again unless it is renamed.
    pub fn create_temp(&self) -> Result<Temp, TargetError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            let name = temp_name();
            let created = self.call("create a file in", name.as_bytes(), |hand| {
                let file = openat(&self.inner.dir, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
                self.give_away(hand, &file)?;
                Ok(file)
            });
            match created {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                Err(TargetError::Call { operation, errno, .. }) => {
                    return Err(TargetError::Call { operation, path: self.name().into(), errno });
                }
                done => return Ok(Temp::new(self.clone(), name.into_bytes(), File::from(done?))),
            }
        }
    }

    /// A new empty file under this name, open for reading and writing; EEXIST when it is taken, by a symlink too.
    pub fn create_file(&self, leaf: &[u8], mode: u32, append: bool) -> Result<File, TargetError> {
        let mut flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        flags.set(OFlag::O_APPEND, append);
        self.call("create the file", leaf, |hand| {
            let file = openat(&self.inner.dir, leaf, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
            self.give_away(hand, &file)?;
            // The umask has no say; set-id bits are for nobody's new file.
            nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode & 0o1777))?;
            Ok(File::from(file))
        })
    }

    /// Gives an existing entry another name; of a symlink the link itself is meant. EEXIST when the name is taken.
    pub fn hard_link(&self, leaf: &[u8], to_dir: &Self, to: &[u8]) -> Result<(), TargetError> {
        path::check_leaf(leaf)?;
        to_dir.call("make the hard link", to, |_| {
            linkat(&self.inner.dir, leaf, &to_dir.inner.dir, to, AtFlags::empty())
        })
    }

    /// Makes a directory with exactly this mode; EEXIST when the name is taken, by a symlink too.
    pub fn mkdir(&self, leaf: &[u8], mode: u32) -> Result<(), TargetError> {
        self.call("make the directory", leaf, |hand| {
            mkdirat(&self.inner.dir, leaf, Mode::S_IRWXU)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let dir = openat(&self.inner.dir, leaf, flags, Mode::empty())?;
            let stat = fstat(&dir)?;
            if !is_new(&stat) || hand == Hand::Agent && !is_empty(&dir)? {
                return Ok(());
            }
            if hand == Hand::Agent {
                let (uid, gid) = self.owner_for_new(&stat)?;
                fchownat(&dir, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
            }
            // The umask has no say in what the laptop asks for; a set-gid bit of the directory is inherited.
            let mode = Mode::from_bits_truncate(mode & 0o7777 | stat.st_mode & Mode::S_ISGID.bits());
            fchmodat(AT_FDCWD, proc::by_descriptor(&dir).as_str(), mode, FchmodatFlags::FollowSymlink)
        })
    }

    /// Makes a symlink; what it says is not looked at. EEXIST when the name is taken.
    pub fn symlink(&self, target: &[u8], leaf: &[u8]) -> Result<(), TargetError> {
        self.call("make the link", leaf, |hand| {
            symlinkat(target, &self.inner.dir, leaf)?;
            if hand == Hand::Agent {
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let link = openat(&self.inner.dir, leaf, flags, Mode::empty())?;
                let stat = fstat(&link)?;
                if is_new(&stat) && stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits() {
                    let (uid, gid) = self.owner_for_new(&stat)?;
                    fchownat(&link, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
                }
            }
            Ok(())
        })
    }

    fn give_away(&self, hand: Hand, file: &OwnedFd) -> Result<(), Errno> {
        if hand == Hand::App {
            return Ok(());
        }
        let (uid, gid) = self.owner_for_new(&fstat(file)?)?;
        match fchown(file, Some(uid), Some(gid)) {
            // Without CHOWN it stays the agent's: the app can read it, and that is all there is to have.
            Err(Errno::EPERM) => Ok(()),
            done => done,
        }
    }

    fn owner_for_new(&self, new: &FileStat) -> Result<(Uid, Gid), Errno> {
        let directory = fstat(&self.inner.dir)?;
        let inherited = directory.st_mode & Mode::S_ISGID.bits() != 0;
        let gid = if inherited { new.st_gid } else { directory.st_gid };
        Ok((Uid::from_raw(directory.st_uid), Gid::from_raw(gid)))
    }
}

/// A directory that was just made is; another one of root's, which the app put in its place, is not given away.
fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let listing = Dir::from_fd(openat(dir, ".", flags, Mode::empty())?)?;
    Ok(listing.into_iter().flatten().all(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

/// What was opened under the new entry's name is indeed of this thread: an entry that the app put there instead
/// is not given away and not changed.
fn is_new(stat: &FileStat) -> bool {
    stat.st_uid == FsIds::current().uid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temps_are_known_by_name_and_nothing_else_is() {
        let name = temp_name();
        assert_eq!(name.len(), 25);
        assert!(is_temp_name(name.as_bytes()));
        assert_ne!(temp_name(), temp_name());
        for other in [
            ".devsync-",
            ".devsync-0123456789abcde",
            ".devsync-0123456789ABCDEF",
            "x",
            ".devsync-0123456789abcdef.c",
        ] {
            assert!(!is_temp_name(other.as_bytes()), "{other}");
        }
    }
}
