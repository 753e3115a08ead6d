//! The agent's own directory: made, or found, so that nobody else can write in it.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::geteuid;
use thiserror::Error;

use crate::sys::proc::by_descriptor;

const HINT: &str = "mount a writable emptyDir there, or name another directory with --state";

#[derive(Debug, Error)]
pub enum StateError {
    #[error("cannot {what} {} (hint: {HINT})", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} belongs to uid {owner}, the agent runs as uid {uid} (hint: name another directory with --state)", path.display())]
    Owner { path: PathBuf, owner: u32, uid: u32 },
    #[error("{} has mode {mode:04o}: others can use it (hint: chmod 700 {})", path.display(), path.display())]
    Mode { path: PathBuf, mode: u32 },
}

/// A directory that only this user may write.
#[derive(Debug)]
pub struct StateDir {
    /// For people.
    name: PathBuf,
    /// What files in it are reached by.
    path: PathBuf,
    fd: OwnedFd,
}

impl StateDir {
    /// `dir` itself where it is this user's alone, or was missing and could be made so. In one that others may write,
    /// as the kubelet makes an emptyDir (root's, 0777), a directory of this user's own, named by its uid.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let make = |source| StateError::Io { what: "make the directory", path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(make)?;
        Self::find(dir, true)
    }

    /// The same, but nothing is made.
    pub fn existing(dir: &Path) -> Result<Self, StateError> {
        Self::find(dir, false)
    }

    fn find(dir: &Path, make: bool) -> Result<Self, StateError> {
        let uid = geteuid().as_raw();
        let (fd, stat) = open_dir(AT_FDCWD, dir, dir, OFlag::empty())?;
        if stat.st_uid == uid && stat.st_mode & 0o022 == 0 {
            return Ok(Self { name: dir.to_owned(), path: dir.to_owned(), fd });
        }
        let own = PathBuf::from(uid.to_string());
        let name = dir.join(&own);
        if make {
            match mkdirat(&fd, &own, Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(errno) => {
                    let source = errno.into();
                    return Err(StateError::Io { what: "make the directory", path: name, source });
                }
            }
        }
        // Whoever can write beside it may have put something else there: what was opened is looked at, and used.
        let (fd, stat) = open_dir(fd.as_fd(), &own, &name, OFlag::O_NOFOLLOW)?;
        if stat.st_uid != uid {
            return Err(StateError::Owner { path: name, owner: stat.st_uid, uid });
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(StateError::Mode { path: name, mode: stat.st_mode & 0o7777 });
        }
        Ok(Self { path: by_descriptor(&fd).into(), name, fd })
    }

    /// For messages.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Leads to this very directory for as long as this lives, whatever others do to its name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_dir(
    at: BorrowedFd<'_>,
    path: &Path,
    name: &Path,
    flags: OFlag,
) -> Result<(OwnedFd, FileStat), StateError> {
    let error = |errno: nix::errno::Errno| StateError::Io {
        what: "open the directory",
        path: name.to_owned(),
        source: errno.into(),
    };
    let flags = flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(at, path, flags, Mode::empty()).map_err(error)?;
    let stat = fstat(&fd).map_err(error)?;
    Ok((fd, stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn shared() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temp directory");
        let path = dir.path().join("volume");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("chmod");
        (dir, path)
    }

    #[test]
    fn a_directory_of_our_own_is_used_itself() {
        let dir = tempfile::tempdir().expect("temp directory");
        let path = dir.path().join("made/here");
        assert!(StateDir::existing(&path).is_err());
        assert_eq!(StateDir::open(&path).expect("made").path(), path);
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        assert_eq!(StateDir::existing(&path).expect("found").path(), path);
    }

    #[test]
    fn in_a_volume_that_others_may_write_it_is_a_directory_of_our_own() {
        let (_dir, volume) = shared();
        assert!(StateDir::existing(&volume).is_err());
        let state = StateDir::open(&volume).expect("made");
        fs::write(state.path().join("file"), "ours").expect("written");
        let own = volume.join(geteuid().to_string());
        assert_eq!(state.name(), own);
        assert_eq!(fs::metadata(&own).expect("there").mode() & 0o777, 0o700);
        // Its name may lead elsewhere now; the files are still those.
        fs::rename(&own, volume.join("away")).expect("renamed");
        assert_eq!(fs::read(state.path().join("file")).expect("read"), b"ours");
    }

    #[test]
    fn what_others_may_have_prepared_is_refused() {
        let (_dir, volume) = shared();
        let own = volume.join(geteuid().to_string());
        fs::create_dir(&own).expect("made");
        fs::set_permissions(&own, Permissions::from_mode(0o755)).expect("chmod");
        let error = StateDir::open(&volume).expect_err("others can look in");
        assert!(error.to_string().contains("chmod 700"), "{error}");
        fs::remove_dir(&own).expect("removed");
        symlink("/tmp", &own).expect("linked");
        assert!(matches!(StateDir::open(&volume), Err(StateError::Io { .. })));
    }
}
