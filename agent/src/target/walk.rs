//! The way to a directory where openat2 is missing: component by component, and a symlink is refused.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

const DIRECTORY: OFlag =
    OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Opens the directory `path` (checked, relative; empty for `start` itself). ELOOP where a component is a symlink.
///
/// There is no `..` in a checked path and no link is followed, so each step goes down.
pub(super) fn open_directory(start: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut here = openat(&start, ".", DIRECTORY, Mode::empty())?;
    for component in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        here = step(here, component)?;
    }
    Ok(here)
}

fn step(here: OwnedFd, component: &[u8]) -> Result<OwnedFd, Errno> {
    match openat(&here, component, DIRECTORY, Mode::empty()) {
        // O_DIRECTORY speaks before O_NOFOLLOW does; the difference matters only to the message.
        Err(Errno::ENOTDIR) => {
            let stat = fstatat(&here, component, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let link = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK;
            Err(if link { Errno::ELOOP } else { Errno::ENOTDIR })
        }
        done => done,
    }
}
