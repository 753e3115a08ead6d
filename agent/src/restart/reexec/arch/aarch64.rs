//! aarch64: as x86_64, with `svc #0`, the call's number in x8, and the kernel's habits of this machine.
//! Written from the kernel's and the manual's text; compiled, but run only where such a machine is at hand.
//!
//! Two differences: an interrupted call is already rewound when its thread is seen stopped, so there is
//! nothing to do for it; and x7 carries the side of a syscall stop, so it is not what the program had.

use std::io;

use super::{Call, Stub, Way, encode_calls, restarted};
use crate::sys::ptrace::{self, Registers};

const INSTRUCTION: u64 = 4;
/// The length of the call instruction, behind which the way back begins.
pub(in super::super) const CALL_BYTES: u64 = INSTRUCTION;
const SVC: u32 = 0xd400_0001;
/// The register that numbers the call.
const NUMBER: usize = 8;
/// The branch type: set, it would ask for a landing pad where the thread goes on.
const PSTATE_BTYPE: u64 = 0b11 << 10;

/// The machine field of ELF files that run here.
pub(in super::super) const ELF_MACHINE: u16 = 183;

/// The registers of a thread that will make this call at `at`.
pub(in super::super) fn calling(base: &Registers, at: u64, call: &Call) -> Registers {
    let mut regs = *base;
    regs.regs[NUMBER] = call.number as u64;
    regs.regs[..6].copy_from_slice(&call.args);
    regs.pc = at;
    regs.pstate &= !PSTATE_BTYPE;
    regs
}

/// The result of a call: a value, or a negative error number.
pub(in super::super) fn result(regs: &Registers) -> i64 {
    regs.regs[0] as i64
}

/// The registers with which a thread that is stopped outside of a call, or after one, goes on.
pub(in super::super) fn continuation(stopped: &Registers) -> Registers {
    let mut regs = *stopped;
    // At a syscall's exit the first argument is lost, so the program sees the call as interrupted.
    if restarted(0, regs.regs[0] as i64).is_some() {
        regs.regs[0] = -i64::from(libc::EINTR) as u64;
    }
    regs
}

/// The registers with which a thread whose call was skipped at its entry makes it again.
pub(in super::super) fn again(at_entry: &Registers) -> Registers {
    let mut regs = *at_entry;
    regs.pc -= INSTRUCTION;
    regs
}

/// Skips the call at whose entry the thread is stopped: here the number stands beside the registers.
pub(in super::super) fn skip(tid: i32, _at_entry: &Registers) -> io::Result<()> {
    ptrace::set_syscall_number(tid, -1)
}

/// The stub for a thread with this way back.
pub(in super::super) fn stub(way: &Way<'_>) -> Stub {
    let mut code = Code::default();
    code.words.push(SVC);
    code.undo_list();
    code.restore(way);
    if code.words.len() % 2 == 1 {
        code.words.push(SVC);
    }
    let data_at = code.words.len() * 4;
    let data = way.at + data_at as u64;
    let own_list =
        [Call::new(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, data + 8 * Code::MASK, 0, 8])];
    let mut values = vec![data + 8 * (Code::VALUES + code.values.len() as u64), way.mask];
    values.extend(&code.values);
    values.extend(encode_calls(&own_list));
    code.finish(data_at, &values)
}

/// Machine code that loads 64-bit literals that follow it.
#[derive(Default)]
struct Code {
    words: Vec<u32>,
    /// The index of a load, and the literal that it means.
    references: Vec<(usize, u64)>,
    values: Vec<u64>,
}

impl Code {
    const LIST: u64 = 0;
    const MASK: u64 = 1;
    const VALUES: u64 = 2;

    fn load(&mut self, register: u32, literal: u64) {
        self.references.push((self.words.len(), literal));
        self.words.push(0x5800_0000 | register); // ldr register, literal
    }

    fn value(&mut self, register: u32, value: u64) {
        let literal = Self::VALUES + self.values.len() as u64;
        self.values.push(value);
        self.load(register, literal);
    }

    /// Makes the calls of the list.
    fn undo_list(&mut self) {
        self.load(19, Self::LIST);
        self.words.extend([
            0xf940_0268, // ldr x8, [x19]
            0xb7f8_00c8, // tbnz x8, #63, past the b below
            0xa940_8660, // ldp x0, x1, [x19, #8]
            0xa941_8e62, // ldp x2, x3, [x19, #24]
            SVC,
            0x9100_a273, // add x19, x19, #40
            0x17ff_fffa, // b to the ldr
        ]);
    }

    /// Loads every register and goes to where the thread was; beyond the reach of a branch x17 is lost.
    fn restore(&mut self, way: &Way<'_>) {
        let r = way.registers;
        self.value(16, r.sp);
        self.words.push(0x9100_021f); // mov sp, x16
        self.value(16, r.pstate);
        self.words.push(0xd51b_4210); // msr nzcv, x16
        for register in 0..31u32 {
            self.value(register, r.regs[register as usize]);
        }
        let here = way.at + 4 * self.words.len() as u64;
        let distance = (r.pc as i64).wrapping_sub(here as i64) >> 2;
        if (-(1 << 25)..1 << 25).contains(&distance) {
            self.words.push(0x1400_0000 | (distance as u32 & 0x03ff_ffff)); // b
        } else {
            self.value(17, r.pc);
            self.words.push(0xd61f_0220); // br x17
        }
    }

    fn finish(mut self, data_at: usize, values: &[u64]) -> Stub {
        for (at, literal) in &self.references {
            let distance = (data_at + 8 * *literal as usize - 4 * at) as u32 >> 2;
            self.words[*at] |= distance << 5;
        }
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        Stub { bytes, list_at: data_at }
    }
}
