//! `devsync` with its agent against real processes: what a developer does, and what must not happen to them.
//! The programs are those of this build: `cargo build --workspace --bins` makes them.

mod bad;
mod container;
mod loss;
mod on_change;
mod places;
mod pull;
mod python;
mod reconnect;
mod relay;
mod reverse;
mod rig;
mod ssh;
mod supervised;
mod targets;
mod twice;
