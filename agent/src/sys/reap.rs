//! Takes the exit of children, whatever signal ended them (nix fails on real-time signals after the child is already reaped).

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What one waitpid(2) found.
#[derive(Clone, Copy, Debug)]
pub enum Reaped {
    /// A child ended or stopped; `ExitStatusExt::stopped_signal` tells them apart.
    Changed(i32, ExitStatus),
    /// Children remain, none has anything to tell.
    Alive,
    /// There is no child at all.
    NoChildren,
}

/// Takes the next change of any child, without waiting.
pub fn next() -> io::Result<Reaped> {
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a live local variable.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
        if pid > 0 {
            return Ok(Reaped::Changed(pid, ExitStatus::from_raw(status)));
        }
        if pid == 0 {
            return Ok(Reaped::Alive);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ECHILD) => return Ok(Reaped::NoChildren),
            Some(libc::EINTR) => continue,
            _ => return Err(error),
        }
    }
}

/// Whether `pid` is a living or dead child of this process; answers without /proc and takes nothing.
pub fn is_child(pid: i32) -> bool {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is plain data, for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the info is written to a live local variable; WNOWAIT leaves the child as it is.
    unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0 }
}
