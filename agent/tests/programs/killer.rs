//! `killer N PROGRAM ARGS…` runs a program and kills it at its Nth ptrace call, so that a tracer can be ended at each
//! of its steps. Exits 0 if it was killed, 1 if it ended before.

use std::ffi::{c_int, c_long, c_void};
use std::os::unix::process::CommandExt;

unsafe extern "C" {
    fn ptrace(request: c_long, pid: c_int, addr: *mut c_void, data: *mut c_void) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn raise(signal: c_int) -> c_int;
}

const PTRACE_TRACEME: c_long = 0;
const PTRACE_SYSCALL: c_long = 24;
const PTRACE_SETOPTIONS: c_long = 0x4200;
const PTRACE_GET_SYSCALL_INFO: c_long = 0x420e;
const TRACESYSGOOD_EXITKILL: usize = 1 | 0x100000;
#[cfg(target_arch = "x86_64")]
const SYS_PTRACE: u64 = 101;
#[cfg(target_arch = "aarch64")]
const SYS_PTRACE: u64 = 117;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let wanted: u64 = args.next().and_then(|n| n.to_str()?.parse().ok()).expect("a number");
    let mut command = std::process::Command::new(args.next().expect("a program"));
    command.args(args);
    // SAFETY: both calls are safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            ptrace(PTRACE_TRACEME, 0, std::ptr::null_mut(), std::ptr::null_mut());
            Ok(())
        });
    }
    let child = command.spawn().expect("runs").id() as c_int;
    let (mut status, mut seen) = (0, 0);
    // SAFETY: plain numbers, a status of ours, and a buffer with its size.
    unsafe {
        waitpid(child, &mut status, 0);
        ptrace(PTRACE_SETOPTIONS, child, std::ptr::null_mut(), TRACESYSGOOD_EXITKILL as *mut c_void);
        let mut signal = 0;
        loop {
            ptrace(PTRACE_SYSCALL, child, std::ptr::null_mut(), signal as *mut c_void);
            signal = 0usize;
            waitpid(child, &mut status, 0);
            if status & 0x7f != 0x7f {
                std::process::exit(1);
            }
            let stop = status >> 8 & 0xff;
            if stop != 0x85 {
                signal = if status >> 16 == 0 && stop != 5 { stop as usize } else { 0 };
                continue;
            }
            let mut info = [0u64; 11];
            ptrace(PTRACE_GET_SYSCALL_INFO, child, 88 as *mut c_void, info.as_mut_ptr().cast());
            if info[0] & 0xff == 1 && info[3] == SYS_PTRACE {
                seen += 1;
                if seen == wanted {
                    kill(child, 9);
                    waitpid(child, &mut status, 0);
                    raise(9);
                }
            }
        }
    }
}
