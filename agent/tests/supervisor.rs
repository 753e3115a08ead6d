//! devsync-run with real programs: restarts, crashes, signals, output, terminals, hostile peers, namespaces.
#![allow(clippy::unwrap_used)]

#[path = "supervisor/control.rs"]
mod control;
#[path = "supervisor/crash.rs"]
mod crash;
#[path = "supervisor/harness.rs"]
mod harness;
#[path = "supervisor/namespaces.rs"]
mod namespaces;
#[path = "supervisor/output.rs"]
mod output;
#[path = "supervisor/restart.rs"]
mod restart;
#[path = "supervisor/seed.rs"]
mod seed;
#[path = "supervisor/signals.rs"]
mod signals;
#[path = "supervisor/terminal.rs"]
mod terminal;
#[path = "supervisor/wait.rs"]
mod wait;
