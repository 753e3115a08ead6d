//! A program for the restart tests, std only: on SIGTERM it waits in the kernel, uninterruptibly, for a child of vfork
//! that never ends by itself.

use std::ffi::c_int;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn vfork() -> c_int;
    fn pause() -> c_int;
    fn prctl(option: c_int, argument: u64) -> c_int;
}

const SIGTERM: c_int = 15;
const SIGKILL: u64 = 9;
const PR_SET_PDEATHSIG: c_int = 1;

extern "C" fn hang(_: c_int) {
    unsafe {
        if vfork() == 0 {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            loop {
                pause();
            }
        }
    }
}

fn main() {
    unsafe { signal(SIGTERM, hang) };
    println!("START");
    loop {
        unsafe { pause() };
    }
}
