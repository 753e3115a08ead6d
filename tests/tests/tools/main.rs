//! The tools with a process of this machine, and the real programs beside them: gdb, Delve, OpenSSH.

mod debug;
mod debugpy;
mod doctor;
mod once;
mod ps;
mod rig;
mod ssh;
