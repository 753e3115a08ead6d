//! Programs in the app's world: its root, environment, directory, ids, and no more capabilities than it has.
//!
//! The agent starts this executable again as a helper (`helper`), which has nothing of the agent's but the few
//! descriptors that it is given. It changes its root, gives up what the app has not, and executes; what fails on the
//! way is told to the agent, and nothing is executed then. There is no way back to the agent's own root. One task alone
//! stays in it, and only by its name: a shell beside the app (`beside`).

mod beside;
mod direct;
pub mod helper;
mod launch;
pub(crate) mod passwd;
mod plan;
mod toolbox;
mod words;

pub(crate) use helper::{PATH, SHELLS};
pub use launch::{LaunchError, Launched, Request, Streams, cannot_enter, launch};
pub use plan::Task;
pub use toolbox::TOOLBOX;
pub use words::split;
