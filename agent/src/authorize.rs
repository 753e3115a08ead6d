//! `devsync-agent authorize`: a process that the developer's client runs in the agent's container (pods/exec)
//! registers a key with the agent that serves there, over a Unix socket in the state directory.
//!
//! `proof` says how each end knows that the other is a process of the agent's own container; `desk` is the serving
//! end, `ask` the other.

mod ask;
mod desk;
mod message;
mod proof;

pub use ask::{AskArgs, AskError, StopArgs, ask, stop};
pub use desk::{Book, Desk, DeskError};
pub use proof::ProofError;

/// The socket's name in the state directory.
const SOCKET: &str = "authorize.sock";
