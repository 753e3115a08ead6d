//! System calls made by a thread of the app that was stopped for them, and the thread's return to where it was.
//!
//! The calls go through a stub in the app's own memory, behind whose call instruction lies the way back: calls that
//! undo, then every register as it was. Whenever the tracer is killed, the thread finds itself on that way. What is
//! called, and in what order, is the engine's business.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use devsync_protocol::restart::{Refusal, RefusalKind};

use super::arch::{self, Call, Stub, Way};
use super::error::ReexecError;
use super::place::{self, Place};
use super::threads::Threads;
use crate::sys::proc_task;
use crate::sys::ptrace::{self, Registers, Stop, Syscall};

/// How long one call may take; they do not block.
const CALL_TIME: Duration = Duration::from_secs(5);
/// How long execve may take: it reads the executable and waits for the other threads to end.
const EXECUTE_TIME: Duration = Duration::from_secs(20);
const ALL_SIGNALS: u64 = u64::MAX;
/// The stub may grow by a branch when it lies far from the thread's code.
const STUB_SLACK: usize = 32;

/// A thread that was taken away from its work.
pub(super) struct Injection {
    tid: i32,
    memory: File,
    place: Place,
    /// Where in memory the address of the list of undoing calls stands, and its first value.
    list_slot: u64,
    own_list: u64,
    /// The registers and blocked signals to go on with.
    registers: Registers,
    mask: u64,
    undo: Vec<Call>,
    scratch: Option<(u64, u64)>,
}

/// Checks without any change that calls could be made by every held thread, any of which may end the program.
pub(super) fn check(threads: &Threads) -> Result<(), ReexecError> {
    let mut first = None;
    for tid in threads.candidates() {
        let trace = |source| ReexecError::Trace { operation: "read the registers of", tid, source };
        let registers = ptrace::registers(tid).map_err(trace)?.ok_or_else(|| foreign(tid))?;
        first = first.or(Some((tid, registers)));
    }
    let (tid, registers) = first.ok_or_else(|| threads.ended())?;
    let memory = proc_task::memory(tid).map_err(|source| ReexecError::Memory { source })?;
    let stub = arch::stub(&Way { registers: &registers, mask: 0, at: 0 });
    place::find(tid, &memory, stub.bytes.len() + STUB_SLACK).map(drop).ok_or(ReexecError::NoPlace)
}

impl Injection {
    /// Takes a held thread: from here on its way back is always in place.
    pub(super) fn begin(threads: &mut Threads, tid: i32) -> Result<Self, ReexecError> {
        let registers = settle(threads, tid)?;
        let trace = |operation| move |source| ReexecError::Trace { operation, tid, source };
        let mask = ptrace::signal_mask(tid).map_err(trace("read the signal mask of"))?;
        let memory = proc_task::memory(tid).map_err(|source| ReexecError::Memory { source })?;
        let stub = |at| arch::stub(&Way { registers: &registers, mask, at });
        let place =
            place::find(tid, &memory, stub(0).bytes.len() + STUB_SLACK).ok_or(ReexecError::NoPlace)?;
        let Stub { bytes, list_at } = stub(place.at);
        let own_list = u64_at(&bytes, list_at);
        let injection = Self {
            tid,
            memory,
            list_slot: place.at + list_at as u64,
            own_list,
            place,
            registers,
            mask,
            undo: Vec::new(),
            scratch: None,
        };
        injection.poke(injection.place.at, &bytes)?;
        // On the way back first, so that the mask that follows is not for ever.
        let nothing = Call::new(0, []);
        injection.set(&arch::calling(&registers, injection.place.at + arch::CALL_BYTES, &nothing))?;
        ptrace::set_signal_mask(tid, ALL_SIGNALS).map_err(trace("block the signals of"))?;
        Ok(injection)
    }

    /// The signals that the thread has blocked for itself.
    pub(super) fn mask(&self) -> u64 {
        self.mask
    }

    /// Makes a call; an error number is an error.
    pub(super) fn call(
        &self,
        threads: &mut Threads,
        name: &'static str,
        call: &Call,
    ) -> Result<u64, ReexecError> {
        self.set(&arch::calling(&self.registers, self.place.at, call))?;
        self.to_entry(threads, name)?;
        loop {
            threads.resume(self.tid, 0)?;
            self.at_syscall(threads, name)?;
            if !matches!(self.stopped_at()?, Syscall::Entry(_)) {
                break;
            }
        }
        let result = arch::result(&self.read()?);
        outcome(result).map_err(|source| ReexecError::Call { call: name, source })
    }

    /// Runs the thread to the entry of the call that was set. The kernel says which stop it is: one that was still
    /// due from before, taken for the entry, would have the result read before the call was made.
    fn to_entry(&self, threads: &mut Threads, name: &'static str) -> Result<(), ReexecError> {
        loop {
            threads.resume(self.tid, 0)?;
            self.at_syscall(threads, name)?;
            if matches!(self.stopped_at()?, Syscall::Entry(_)) {
                return Ok(());
            }
        }
    }

    fn stopped_at(&self) -> Result<Syscall, ReexecError> {
        let look = |source| ReexecError::Trace { operation: "look at the call of", tid: self.tid, source };
        ptrace::syscall(self.tid).map_err(look)
    }

    /// Waits for the thread's next syscall stop.
    fn at_syscall(&self, threads: &mut Threads, name: &'static str) -> Result<(), ReexecError> {
        let deadline = Instant::now() + CALL_TIME;
        loop {
            match threads.wait_for(self.tid, deadline)? {
                Some(Stop::Syscall) => return Ok(()),
                Some(Stop::Ended(_)) => return Err(threads.ended()),
                // SIGSTOP, which nothing blocks, or the rest of an interrupt.
                Some(stop) => {
                    threads.owe(self.tid, stop);
                    threads.resume(self.tid, 0)?;
                }
                None => return Err(ReexecError::Stuck { call: name }),
            }
        }
    }

    /// Maps memory of this size for the calls' arguments; it begins with these bytes.
    pub(super) fn map(&mut self, threads: &mut Threads, size: usize) -> Result<u64, ReexecError> {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let call = Call::new(libc::SYS_mmap, [0, size as u64, protection, flags, u64::MAX, 0]);
        let at = self.call(threads, "mmap", &call)?;
        self.scratch = Some((at, size as u64));
        Ok(at)
    }

    /// Writes what was mapped.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), ReexecError> {
        self.memory.write_all_at(bytes, at).map_err(|source| ReexecError::Memory { source })
    }

    /// Puts calls on the way back; `list` is where they are encoded in what was written.
    pub(super) fn arm(&mut self, list: u64, undo: Vec<Call>) -> Result<(), ReexecError> {
        self.undo = undo;
        self.poke(self.list_slot, &list.to_ne_bytes())
    }

    /// Executes another program with no signal blocked. Ok means that it begins; every other thread is gone.
    pub(super) fn execute(
        &self,
        threads: &mut Threads,
        path: u64,
        argv: u64,
        envp: u64,
    ) -> Result<(), io::Error> {
        let call = Call::new(libc::SYS_execve, [path, argv, envp]);
        // Before the registers, so that the new program never begins with everything blocked, whenever this process is
        // ended. With a blocked signal pending that would deliver it to the old program: then at the entry.
        let pending = proc_task::status(self.tid)?.sig_pending != 0;
        if !pending {
            ptrace::set_signal_mask(self.tid, 0)?;
        }
        self.set(&arch::calling(&self.registers, self.place.at, &call)).map_err(io::Error::other)?;
        self.to_entry(threads, "execve").map_err(io::Error::other)?;
        if pending {
            ptrace::set_signal_mask(self.tid, 0)?;
        }
        threads.resume(self.tid, 0).map_err(io::Error::other)?;
        let deadline = Instant::now() + EXECUTE_TIME;
        loop {
            match threads.next(deadline).map_err(io::Error::other)? {
                Some((_, Stop::Exec)) => return Ok(()),
                Some((tid, Stop::Syscall)) if tid == self.tid => {
                    ptrace::set_signal_mask(self.tid, ALL_SIGNALS)?;
                    return outcome(arch::result(&ptrace_registers(self.tid)?)).map(drop);
                }
                // A sibling that ends, or one that stops on its way to its end.
                Some(_) => {}
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Undoes what was armed and puts the thread back to where it was; it is held still.
    pub(super) fn end(self, threads: &mut Threads) -> Result<(), ReexecError> {
        for call in &self.undo {
            // Each gives back one thing; that another one is gone must not keep it.
            let _ = self.call(threads, "undo", call);
        }
        self.poke(self.list_slot, &self.own_list.to_ne_bytes())?;
        if let Some((at, size)) = self.scratch {
            self.call(threads, "munmap", &Call::new(libc::SYS_munmap, [at, size]))?;
        }
        let restore = |source| ReexecError::Trace { operation: "restore", tid: self.tid, source };
        // The mask first: with the tracer gone between the two, the way back does the rest.
        ptrace::set_signal_mask(self.tid, self.mask).map_err(restore)?;
        self.set(&self.registers)?;
        self.poke(self.place.at, &self.place.former)
    }

    fn read(&self) -> Result<Registers, ReexecError> {
        let read = |source| ReexecError::Trace { operation: "read the registers of", tid: self.tid, source };
        ptrace_registers(self.tid).map_err(read)
    }

    fn set(&self, registers: &Registers) -> Result<(), ReexecError> {
        let write = |source| ReexecError::Trace { operation: "set the registers of", tid: self.tid, source };
        ptrace::set_registers(self.tid, *registers).map_err(write)
    }

    /// Writes code: /proc/PID/mem may be forbidden to write what is read-only, this is not.
    fn poke(&self, at: u64, bytes: &[u8]) -> Result<(), ReexecError> {
        for (index, _) in bytes.iter().enumerate().step_by(8) {
            let mut word = [0; 8];
            let chunk = &bytes[index..bytes.len().min(index + 8)];
            word[..chunk.len()].copy_from_slice(chunk);
            ptrace::poke(self.tid, at + index as u64, u64::from_ne_bytes(word))
                .map_err(|source| ReexecError::Memory { source })?;
        }
        Ok(())
    }
}

/// Brings a held thread out of a syscall's entry, and tells with which registers it would go on by itself.
fn settle(threads: &mut Threads, tid: i32) -> Result<Registers, ReexecError> {
    let trace = |operation| move |source| ReexecError::Trace { operation, tid, source };
    let registers = ptrace::registers(tid).map_err(trace("read the registers of"))?;
    let registers = registers.ok_or_else(|| foreign(tid))?;
    let held = threads.held(tid);
    if let Some(stop) = held {
        threads.owe(tid, stop);
    }
    if held != Some(Stop::Syscall) {
        return Ok(arch::continuation(&registers));
    }
    match ptrace::syscall(tid).map_err(trace("look at the call of"))? {
        Syscall::Entry(_) => {
            arch::skip(tid, &registers).map_err(trace("skip the call of"))?;
            threads.resume(tid, 0)?;
            match threads.wait_for(tid, Instant::now() + CALL_TIME)? {
                Some(Stop::Syscall) => Ok(arch::again(&registers)),
                Some(_) => Err(threads.ended()),
                None => Err(ReexecError::Stuck { call: "its own" }),
            }
        }
        Syscall::Exit | Syscall::Outside => Ok(arch::continuation(&registers)),
    }
}

fn foreign(tid: i32) -> ReexecError {
    ReexecError::Refused(Refusal {
        kind: RefusalKind::Foreign,
        cause: format!("thread {tid} runs 32-bit code, which this agent cannot restart"),
        hint: "start the app under devsync-run, and use restart mode supervise".into(),
    })
}

fn ptrace_registers(tid: i32) -> io::Result<Registers> {
    ptrace::registers(tid)?.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A result of a call: the kernel's last 4095 values are error numbers.
fn outcome(result: i64) -> io::Result<u64> {
    if (-4095..0).contains(&result) {
        Err(io::Error::from_raw_os_error(-result as i32))
    } else {
        Ok(result as u64)
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}
