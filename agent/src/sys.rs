//! Every kernel call that has no safe wrapper elsewhere, and every string below `/proc/{pid}`.
//! The only module that may use `unsafe`; it decides nothing.
#![allow(unsafe_code)]

pub mod abstract_socket;
pub mod access;
pub mod capabilities;
pub mod descriptors;
pub mod dumpable;
pub mod heap;
pub mod ids;
pub mod inherit;
pub mod launch;
pub mod listeners;
pub mod mountpoint;
pub mod openat2;
pub mod packets;
pub mod pidfd;
pub mod proc;
pub mod proc_task;
pub mod process_tree;
pub(crate) mod ptrace;
pub mod random;
pub mod readiness;
pub mod reap;
pub mod rename;
pub mod signals;
pub mod terminal;
pub mod xattr;
