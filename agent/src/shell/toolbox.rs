//! The agent's own static programs, for apps that have none: found beside the agent, run inside the app's root
//! without a file of theirs appearing there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use devsync_protocol::contract;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};

/// Names another directory than the toolbox image's.
pub const TOOLBOX: &str = "DEVSYNC_TOOLBOX";
/// What `busybox --list` says, written when the toolbox was made: a busybox that is asked here would be a process of the
/// agent's own container that the app, with the same uid, may look into.
const APPLETS: &str = "applets";
/// Of the names of busybox's applets: some thousand bytes.
const LONGEST_LIST: u64 = 64 * 1024;

/// The directory, where there is one.
pub(super) fn directory() -> Option<OwnedFd> {
    let place = std::env::var_os(TOOLBOX).unwrap_or_else(|| contract::TOOLBOX.into());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(place.as_os_str(), flags, Mode::empty()).ok()
}

/// Whether its busybox has an applet of that program's name; none has where the toolbox has no list of them.
pub(super) fn has_applet(directory: impl AsFd, name: &[u8]) -> bool {
    let mut list = Vec::new();
    let read = program(directory, APPLETS)
        .map(|list| list.take(LONGEST_LIST))
        .map(|mut file| file.read_to_end(&mut list));
    read.is_some_and(|read| read.is_ok())
        && list.split(|byte| *byte == b'\n').any(|applet| !name.is_empty() && applet == name)
}

/// Opens a program of the toolbox; before the root is changed.
pub(super) fn program(directory: impl AsFd, name: &str) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).ok().map(File::from)
}

/// A [`sealed`] copy that its user may execute and not read: what runs from it is not dumpable, so that no other
/// process of that user can trace it or go through its `/proc/PID/root`.
pub(super) fn unreadable(program: File, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let copy = sealed(program, name)?;
    fchmod(&copy, Mode::from_bits_truncate(0o111))?;
    Ok(copy)
}

/// A copy in memory that nobody can change: through `/proc/PID/exe` the app reaches what its programs were started
/// from, and that must not be the agent's own file.
pub(super) fn sealed(mut program: File, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let copy = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut copy = File::from(copy);
    io::copy(&mut program, &mut copy)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}
