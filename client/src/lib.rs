//! The devsync command line client: watches the laptop's files, sends what changed, shows what happens.
//!
//! Portable: nothing Linux-only outside of `cfg`. Only a command module knows all other modules.

pub mod error;
pub mod session;
pub mod transport;
