//! Every kernel call that has no safe wrapper elsewhere, and every string below `/proc/{pid}`.
//! The only module that may use `unsafe`; it decides nothing.
#![allow(unsafe_code)]

pub mod access;
pub mod dumpable;
pub mod ids;
pub mod mountpoint;
pub mod openat2;
pub mod pidfd;
pub mod proc;
pub mod rename;
pub mod xattr;
