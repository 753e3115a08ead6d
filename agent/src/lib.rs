//! The devsync agent: finds the app beside it, applies deltas in its root and restarts it; and the parts of devsync-run, the supervisor.
#![cfg(target_os = "linux")]

pub mod restart;
pub mod supervisor;
pub mod sys;
