//! ptrace and what belongs to it: requests, stops, pidfds, and the helper's own clean start.
//! Raw, because the safe wrappers know no real-time signals; what is done with it is decided in `restart`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long, c_void, pid_t};

/// Syscall stops are marked, exec and new threads are reported. Never EXITKILL: a helper that dies must free the app.
const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACECLONE;
const GET_SYSCALL_INFO: c_int = 0x420e;
/// NT_PRSTATUS of elf.h: the general registers.
const NT_PRSTATUS: usize = 1;
const SIGSET_BYTES: usize = 8;

/// The general registers of a thread, as this machine has them.
pub(crate) type Registers = libc::user_regs_struct;

/// What a stopped thread reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the entry or the exit of a syscall.
    Syscall,
    /// About to receive this signal.
    Signal(i32),
    /// The process's program was replaced.
    Exec,
    /// A thread was made.
    Clone,
    /// Stopped by INTERRUPT, at birth, or (with a stop signal) with its whole group.
    Event(i32),
    /// Ended.
    Ended(Ending),
}

/// How a thread or process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Which side of a syscall a thread is stopped at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syscall {
    /// Before it, with its number.
    Entry(u64),
    /// After it.
    Exit,
    /// At none.
    Outside,
}

/// The start of `struct ptrace_syscall_info`, which is all that is needed.
#[repr(C)]
#[derive(Default)]
struct SyscallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    ip: u64,
    sp: u64,
    number: u64,
    args: [u64; 7],
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A request whose address and data are numbers to the kernel, never memory of ours.
fn plain(request: c_int, tid: pid_t, addr: usize, data: usize) -> io::Result<()> {
    // SAFETY: every caller passes a request for which the kernel reads addr and data as numbers.
    let result = unsafe { libc::ptrace(request as _, tid, addr as *mut c_void, data as *mut c_void) };
    check(result).map(drop)
}

/// Attaches without stopping the thread.
pub(crate) fn seize(tid: pid_t) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE as c_int, tid, 0, OPTIONS as usize)
}

/// Asks a seized thread to stop.
pub(crate) fn interrupt(tid: pid_t) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT as c_int, tid, 0, 0)
}

/// Leaves a thread in its group's stop, still listening.
pub(crate) fn listen(tid: pid_t) -> io::Result<()> {
    plain(libc::PTRACE_LISTEN as c_int, tid, 0, 0)
}

/// Lets a stopped thread run to its next syscall stop, with this signal delivered (0: none).
pub(crate) fn resume(tid: pid_t, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_SYSCALL as c_int, tid, 0, signal as usize)
}

/// Lets a stopped thread go for good.
pub(crate) fn detach(tid: pid_t, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_DETACH as c_int, tid, 0, signal as usize)
}

/// Writes a word even where the mapping is read-only: the process gets its own copy of the page.
pub(crate) fn poke(tid: pid_t, addr: u64, word: u64) -> io::Result<()> {
    plain(libc::PTRACE_POKEDATA as c_int, tid, addr as usize, word as usize)
}

/// Whether a filter takes ptrace away: without one, seizing process 0 is ESRCH.
pub(crate) fn is_filtered() -> bool {
    seize(0).err().and_then(|e| e.raw_os_error()) != Some(libc::ESRCH)
}

/// The registers; `None` for a thread that runs 32-bit code, whose set has another size.
pub(crate) fn registers(tid: pid_t) -> io::Result<Option<Registers>> {
    // SAFETY: user_regs_struct is plain integers, for which all zeros is a value.
    let mut regs: Registers = unsafe { std::mem::zeroed() };
    let mut iov = libc::iovec { iov_base: (&raw mut regs).cast(), iov_len: size_of::<Registers>() };
    // SAFETY: iov points at regs and carries its size; the kernel writes at most that much.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET as _,
            tid,
            NT_PRSTATUS as *mut c_void,
            (&raw mut iov).cast::<c_void>(),
        )
    };
    check(result)?;
    Ok((iov.iov_len == size_of::<Registers>()).then_some(regs))
}

/// Sets the registers.
pub(crate) fn set_registers(tid: pid_t, mut regs: Registers) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: (&raw mut regs).cast(), iov_len: size_of::<Registers>() };
    // SAFETY: iov points at regs and carries its size; the kernel only reads it.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET as _,
            tid,
            NT_PRSTATUS as *mut c_void,
            (&raw mut iov).cast::<c_void>(),
        )
    };
    check(result).map(drop)
}

/// Changes the number of the syscall at whose entry the thread is stopped; arm64 keeps it beside the registers.
#[cfg(target_arch = "aarch64")]
pub(crate) fn set_syscall_number(tid: pid_t, mut number: i32) -> io::Result<()> {
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut iov = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<i32>() };
    // SAFETY: iov points at number and carries its size; the kernel only reads it.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET as _,
            tid,
            NT_ARM_SYSTEM_CALL as *mut c_void,
            (&raw mut iov).cast::<c_void>(),
        )
    };
    check(result).map(drop)
}

/// The blocked signals, as they will be once an interrupted call is over.
pub(crate) fn signal_mask(tid: pid_t) -> io::Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes the SIGSET_BYTES that it is told of, the size of mask.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGMASK as _,
            tid,
            SIGSET_BYTES as *mut c_void,
            (&raw mut mask).cast::<c_void>(),
        )
    };
    check(result).map(|_| mask)
}

/// Sets the blocked signals.
pub(crate) fn set_signal_mask(tid: pid_t, mut mask: u64) -> io::Result<()> {
    // SAFETY: the kernel reads the SIGSET_BYTES that it is told of, the size of mask.
    let result = unsafe {
        libc::ptrace(
            libc::PTRACE_SETSIGMASK as _,
            tid,
            SIGSET_BYTES as *mut c_void,
            (&raw mut mask).cast::<c_void>(),
        )
    };
    check(result).map(drop)
}

/// Where a thread in a syscall stop is. Linux 5.3.
pub(crate) fn syscall(tid: pid_t) -> io::Result<Syscall> {
    let mut info = SyscallInfo::default();
    // SAFETY: the kernel writes at most the size that it is told of, that of info.
    let result = unsafe {
        libc::ptrace(
            GET_SYSCALL_INFO as _,
            tid,
            size_of::<SyscallInfo>() as *mut c_void,
            (&raw mut info).cast::<c_void>(),
        )
    };
    check(result)?;
    Ok(match info.op {
        1 | 3 => Syscall::Entry(info.number),
        2 => Syscall::Exit,
        _ => Syscall::Outside,
    })
}

/// The next stop or end of any traced thread or child that is there now. `Ok(None)`: none yet.
pub(crate) fn next_stop() -> io::Result<Option<(pid_t, Stop)>> {
    let mut status: c_int = 0;
    // SAFETY: the kernel writes one int, the type of status.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) };
    if check(tid.into())? == 0 {
        return Ok(None);
    }
    Ok(Some((tid, decode(status))))
}

fn decode(status: c_int) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Ended(Ending::Exited(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Ended(Ending::Killed(libc::WTERMSIG(status)));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_EXEC => Stop::Exec,
        libc::PTRACE_EVENT_CLONE => Stop::Clone,
        _ => Stop::Event(signal),
    }
}

/// Closes every descriptor from 3 on. Only for a process that has just begun and owns none of them yet.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: the caller is at the start of main, before anything owns a descriptor from 3 on.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    check(result).map(drop)
}

/// Gives SIGCHLD its default disposition: ignored, it would neither tell of stops nor keep a child's status.
pub(crate) fn default_sigchld() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no code of ours.
    let previous = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the kernel would execute the file of this descriptor for this process. EINVAL before Linux 6.14.
pub(crate) fn may_execute(file: BorrowedFd<'_>) -> io::Result<()> {
    const AT_EXECVE_CHECK: c_int = 0x10000;
    let argv = [c"check".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    let flags = libc::AT_EMPTY_PATH | AT_EXECVE_CHECK;
    // SAFETY: the strings and both null-terminated arrays outlive the call, which executes nothing: a kernel
    // that does not know AT_EXECVE_CHECK refuses it.
    let result = unsafe {
        libc::syscall(libc::SYS_execveat, file.as_raw_fd(), c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags)
    };
    check(result).map(drop)
}
