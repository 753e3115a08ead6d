//! The agent's own static programs, for apps that have none: found beside the agent, run inside the app's root
//! without a file of theirs appearing there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

/// Names another directory than [`USUAL`].
pub const TOOLBOX: &str = "DEVSYNC_TOOLBOX";
/// Where the toolbox image has them.
const USUAL: &str = "/toolbox";

/// The directory, where there is one.
pub(super) fn directory() -> Option<OwnedFd> {
    let place = std::env::var_os(TOOLBOX).unwrap_or_else(|| USUAL.into());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(place.as_os_str(), flags, Mode::empty()).ok()
}

/// Opens a program of the toolbox; before the root is changed.
pub(super) fn program(directory: impl AsFd, name: &str) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).ok().map(File::from)
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
