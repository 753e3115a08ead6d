//! What the engine must know of the processor: how a call is put into a stopped thread's registers, and how
//! a thread finds its way back. Everything else is the same on every machine.

use crate::sys::ptrace::Registers;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::*;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::*;

/// A system call by number and its first arguments; the engine needs no more than six, the way back no more than four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

impl Call {
    pub(super) fn new<const N: usize>(number: i64, args: [u64; N]) -> Self {
        let mut all = [0; 6];
        all.iter_mut().zip(args).for_each(|(to, from)| *to = from);
        Self { number, args: all }
    }
}

/// Calls that the way back makes, as words in the thread's memory: number and four arguments each, then -1.
pub(super) fn encode_calls(calls: &[Call]) -> Vec<u64> {
    let mut words = Vec::with_capacity(calls.len() * 5 + 1);
    for call in calls {
        words.push(call.number as u64);
        words.extend_from_slice(&call.args[..4]);
    }
    words.push(u64::MAX);
    words
}

/// The kernel's own error numbers for an interrupted call, which user space never sees.
mod interrupted {
    pub(super) const ERESTARTSYS: i64 = -512;
    pub(super) const ERESTARTNOINTR: i64 = -513;
    pub(super) const ERESTARTNOHAND: i64 = -514;
    pub(super) const ERESTART_RESTARTBLOCK: i64 = -516;
}

/// What a thread that was stopped with this result of an interrupted call has to call again.
fn restarted(number: i64, result: i64) -> Option<i64> {
    use interrupted::*;
    match result {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => Some(number),
        ERESTART_RESTARTBLOCK => Some(libc::SYS_restart_syscall),
        _ => None,
    }
}

/// The code and data that are put into the thread's memory.
pub(super) struct Stub {
    /// The bytes; execution begins at the first with a call, and goes on to the way back.
    pub(super) bytes: Vec<u8>,
    /// Where in them the address of the list of calls for the way back stands.
    pub(super) list_at: usize,
}

/// What the way back restores.
pub(super) struct Way<'a> {
    /// The registers to go on with.
    pub(super) registers: &'a Registers,
    /// The blocked signals.
    pub(super) mask: u64,
    /// Where the stub will lie.
    pub(super) at: u64,
}
