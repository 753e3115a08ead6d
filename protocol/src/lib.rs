//! What the devsync client and agent say to each other.
//!
//! Everything here is pure: no IO, no async, no clock. Every length and count that a peer names is
//! bounded before it is used, because the pod may be hostile to the laptop and the app to the agent.

mod bounded;
pub mod build_id;
mod bytes;
pub mod chunk;
pub mod contract;
pub mod debug;
pub mod delta;
pub mod digest;
pub mod finding;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod path;
pub mod process;
pub mod restart;
pub mod target;
pub mod tree;
