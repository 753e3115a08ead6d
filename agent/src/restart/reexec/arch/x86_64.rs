//! x86_64: calls are made by `syscall` in a stub, behind which lies the way back to where the thread was.
//! The way back runs only when the tracer died: the thread then undoes what was done and goes on by itself.

use std::io;

use super::{Call, Stub, Way, encode_calls, restarted};
use crate::sys::ptrace::{self, Registers};

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The length of the call instruction, behind which the way back begins.
pub(in super::super) const CALL_BYTES: u64 = SYSCALL.len() as u64;
/// No syscall: the kernel shall restart nothing.
const NO_CALL: u64 = u64::MAX;

/// The machine field of ELF files that run here.
pub(in super::super) const ELF_MACHINE: u16 = 62;

/// The registers of a thread that will make this call at `at`.
pub(in super::super) fn calling(base: &Registers, at: u64, call: &Call) -> Registers {
    let mut regs = *base;
    regs.rax = call.number as u64;
    regs.orig_rax = NO_CALL;
    regs.rip = at;
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = call.args;
    regs
}

/// The result of a call: a value, or a negative error number.
pub(in super::super) fn result(regs: &Registers) -> i64 {
    regs.rax as i64
}

/// The registers with which a thread that is stopped outside of a call, or after one, goes on: an
/// interrupted call is made again, which the kernel would do itself only for a thread that it never left.
pub(in super::super) fn continuation(stopped: &Registers) -> Registers {
    let mut regs = *stopped;
    if regs.orig_rax as i64 >= 0
        && let Some(number) = restarted(regs.orig_rax as i64, regs.rax as i64)
    {
        regs.rax = number as u64;
        regs.rip -= SYSCALL.len() as u64;
    }
    regs.orig_rax = NO_CALL;
    regs
}

/// The registers with which a thread whose call was skipped at its entry makes it again.
pub(in super::super) fn again(at_entry: &Registers) -> Registers {
    let mut regs = *at_entry;
    regs.rax = regs.orig_rax;
    regs.orig_rax = NO_CALL;
    regs.rip -= SYSCALL.len() as u64;
    regs
}

/// Skips the call at whose entry the thread is stopped.
pub(in super::super) fn skip(tid: i32, at_entry: &Registers) -> io::Result<()> {
    let mut regs = *at_entry;
    regs.orig_rax = NO_CALL;
    ptrace::set_registers(tid, regs)
}

/// The stub for a thread with this way back.
pub(in super::super) fn stub(way: &Way<'_>) -> Stub {
    let mut code = Code::default();
    code.bytes.extend(SYSCALL);
    code.undo_list();
    code.restore(way.registers);
    let data_at = code.bytes.len().next_multiple_of(8);
    let own_list = [Call::new(
        libc::SYS_rt_sigprocmask,
        [libc::SIG_SETMASK as u64, way.at + data_at as u64 + 8 * Code::MASK, 0, 8],
    )];
    let mut words = vec![way.at + data_at as u64 + 8 * Code::WORDS, way.mask];
    words.extend(&code.values);
    words.extend(encode_calls(&own_list));
    code.finish(data_at, &words)
}

/// Machine code that reads 64-bit words that follow it, relative to the instruction pointer.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    /// Where a displacement stands, and the word that it means.
    references: Vec<(usize, u64)>,
    /// The registers' values, behind the list's address and the mask.
    values: Vec<u64>,
}

impl Code {
    const LIST: u64 = 0;
    const MASK: u64 = 1;
    const VALUES: u64 = 2;
    /// How many words come before the stub's own list.
    const WORDS: u64 = Self::VALUES + 18;

    fn emit(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn refer(&mut self, opcode: &[u8], word: u64) {
        self.emit(opcode);
        self.references.push((self.bytes.len(), word));
        self.emit(&[0; 4]);
    }

    /// Makes the calls of the list.
    fn undo_list(&mut self) {
        self.refer(&[0x48, 0x8b, 0x1d], Self::LIST); // mov rbx, [list]
        let next = self.bytes.len();
        self.emit(&[0x48, 0x8b, 0x03]); // mov rax, [rbx]
        self.emit(&[0x48, 0x85, 0xc0]); // test rax, rax
        self.emit(&[0x78, 24]); // js past the jmp below
        let body = self.bytes.len();
        self.emit(&[0x48, 0x8b, 0x7b, 8]); // mov rdi, [rbx+8]
        self.emit(&[0x48, 0x8b, 0x73, 16]); // mov rsi, [rbx+16]
        self.emit(&[0x48, 0x8b, 0x53, 24]); // mov rdx, [rbx+24]
        self.emit(&[0x4c, 0x8b, 0x53, 32]); // mov r10, [rbx+32]
        self.emit(&SYSCALL);
        self.emit(&[0x48, 0x83, 0xc3, 40]); // add rbx, 40
        let back = next as i64 - (self.bytes.len() as i64 + 2);
        self.emit(&[0xeb, back as i8 as u8]); // jmp next
        debug_assert_eq!(self.bytes.len() - body, 24);
    }

    fn value(&mut self, opcode: &[u8], value: u64) {
        let word = Self::VALUES + self.values.len() as u64;
        self.values.push(value);
        self.refer(opcode, word);
    }

    /// Loads every register and goes to where the thread was.
    fn restore(&mut self, r: &Registers) {
        let low = [(0, r.rax), (1, r.rcx), (2, r.rdx), (3, r.rbx), (5, r.rbp), (6, r.rsi), (7, r.rdi)];
        let high = [r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15];
        for (register, value) in low {
            self.value(&[0x48, 0x8b, 0x05 | register << 3], value); // mov register, [word]
        }
        for (register, value) in (0u8..).zip(high) {
            self.value(&[0x4c, 0x8b, 0x05 | register << 3], value); // mov r8.., [word]
        }
        self.value(&[0x48, 0x8d, 0x25], r.eflags); // lea rsp, [word]
        self.emit(&[0x9d]); // popfq
        self.value(&[0x48, 0x8b, 0x25], r.rsp); // mov rsp, [word]
        self.value(&[0xff, 0x25], r.rip); // jmp [word]
    }

    fn finish(mut self, data_at: usize, words: &[u64]) -> Stub {
        for (at, word) in &self.references {
            let displacement = (data_at as u64 + 8 * word) as i64 - (*at as i64 + 4);
            self.bytes[*at..at + 4].copy_from_slice(&(displacement as i32).to_le_bytes());
        }
        self.bytes.resize(data_at, 0x90);
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        Stub { bytes: self.bytes, list_at: data_at }
    }
}
