//! The devsync agent: finds the app beside it, writes in the app's root, restarts it in place; and the parts of
//! devsync-run, the supervisor that an app may be started under.
#![cfg(target_os = "linux")]

pub mod authorize;
pub mod cli;
pub mod debug;
pub mod doctor;
pub mod inetd;
pub mod processes;
pub mod restart;
pub mod serve;
pub mod session;
pub mod sftp;
pub mod shell;
pub mod ssh;
pub mod state;
pub mod supervisor;
mod sync;
pub mod sys;
pub mod target;
pub mod world;
