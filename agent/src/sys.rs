//! Kernel calls: every one that has no safe wrapper elsewhere, and every path below /proc. No policy.
#![allow(unsafe_code)]

pub mod abstract_socket;
pub mod descriptors;
pub mod launch;
pub mod listeners;
pub mod process_tree;
pub mod reap;
pub mod signals;
