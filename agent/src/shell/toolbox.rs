//! The agent's own static programs, for apps that have none: found beside the agent, run inside the app's root
//! without a file of theirs appearing there.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};

/// Names another directory than [`USUAL`].
pub const TOOLBOX: &str = "DEVSYNC_TOOLBOX";
/// Where the toolbox image has them.
const USUAL: &str = "/toolbox";
/// Of the names of busybox's applets: some thousand bytes.
const LONGEST_LIST: u64 = 64 * 1024;

fn place() -> PathBuf {
    std::env::var_os(TOOLBOX).unwrap_or_else(|| USUAL.into()).into()
}

/// The directory, where there is one.
pub(super) fn directory() -> Option<OwnedFd> {
    let place = place();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(&place, flags, Mode::empty()).ok()
}

/// Whether its busybox has an applet of that program's name, which it alone can say. Asked once: the toolbox is the
/// agent's own, and does not change under it.
pub(super) fn has_applet(words: &[Vec<u8>]) -> bool {
    static APPLETS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let Some(name) = words.first().filter(|name| !name.contains(&b'/')) else { return false };
    APPLETS.get_or_init(|| applets().unwrap_or_default()).contains(name)
}

fn applets() -> io::Result<Vec<Vec<u8>>> {
    let mut asked = Command::new(place().join("busybox"));
    let asked = asked.arg("--list").env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let mut asked = asked.stdout(Stdio::piped()).spawn()?;
    let mut list = Vec::new();
    if let Some(out) = asked.stdout.take() {
        out.take(LONGEST_LIST).read_to_end(&mut list)?;
    }
    asked.wait()?;
    Ok(list.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect())
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
