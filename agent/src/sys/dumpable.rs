//! Makes the agent unreadable for processes with its own uid: no ptrace, no `/proc/AGENT/mem`, no core.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

static HARDENED: AtomicBool = AtomicBool::new(false);

/// The first thing the agent and each re-executed helper does: execve makes a process dumpable again.
///
/// Between execve and this call a process with the same uid may look inside; an executable that is not
/// readable (mode 0111, owned by root) closes that window, since the kernel then starts it undumpable.
pub fn harden() -> Result<(), Errno> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    HARDENED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Sets the flag again after a change of ids undid it (`fs.suid_dumpable` = 1).
pub(crate) fn reassert() {
    if HARDENED.load(Ordering::Relaxed) && prctl::get_dumpable() == Ok(true) {
        // It cannot fail for the value 0 (prctl(2)).
        let _ = prctl::set_dumpable(false);
    }
}
