//! How a running app comes to run its new files. Each way has its module; which one is taken is the session's choice.
//!
//! `reexec` replaces the program in place by ptrace, in `helper`, a process of its own; `signal` tells an app to
//! reload; `ready` sees its sockets come back; `descendants` ends what the old program left running.

pub mod descendants;
pub mod helper;
pub mod ready;
pub mod reexec;
pub mod signal;
