//! Every kernel call that has no safe wrapper, and every path under /proc; nothing is decided here.
#![allow(unsafe_code)]

pub(crate) mod proc_task;
pub(crate) mod ptrace;
