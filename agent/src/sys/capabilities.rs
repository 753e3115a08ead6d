//! The calling thread's capabilities: given up, never gained.

use nix::errno::Errno;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;
/// More than any kernel has (`CAP_LAST_CAP` is 40 in Linux 6).
const CAPABILITIES: u32 = 64;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Part {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes from the bounding set what is not in `kept`, so that no execve gives it back. EPERM without SETPCAP.
pub fn bound(kept: u64) -> Result<(), Errno> {
    for capability in 0..CAPABILITIES {
        if kept >> capability & 1 == 0 && is_bounded(capability) {
            // SAFETY: the call takes integers and touches no memory.
            let dropped =
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
            Errno::result(dropped)?;
        }
    }
    Ok(())
}

/// The permitted set of this thread.
pub fn permitted() -> Result<u64, Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let mut parts = [Part::default(); 2];
    // SAFETY: the kernel reads the header and writes two parts, as capget(2) says for this version.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw const header, parts.as_mut_ptr()) };
    Errno::result(read)?;
    let [low, high] = parts;
    Ok(u64::from(high.permitted) << 32 | u64::from(low.permitted))
}

/// The bounding set of this thread.
pub fn bounding() -> u64 {
    (0..CAPABILITIES).fold(0, |set, capability| set | u64::from(is_bounded(capability)) << capability)
}

fn is_bounded(capability: u32) -> bool {
    // SAFETY: the call takes integers and touches no memory; a number that the kernel does not know is an error.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) == 1 }
}

/// Sets the permitted and effective sets of this thread; the inheritable and ambient ones become empty.
pub fn set(kept: u64) -> Result<(), Errno> {
    let header = Header { version: VERSION, pid: 0 };
    let part = |shift: u32| {
        let bits = u32::try_from(kept >> shift & u64::from(u32::MAX)).unwrap_or(0);
        Part { effective: bits, permitted: bits, inheritable: 0 }
    };
    let parts = [part(0), part(32)];
    // SAFETY: both structures are laid out as capset(2) says for this version, and are only read.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, parts.as_ptr()) };
    Errno::result(set).map(drop)
}
