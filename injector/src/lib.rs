//! Puts devsync into pods: pure functions from a manifest to the same manifest with the agent in it, and back.
//!
//! No IO, no clock, no Kubernetes client: everything is decided from the object, the configuration and what is known
//! of its place. `inject` and `eject` neither fail nor panic; what cannot be done is a warning, and the object passes
//! as it came.

pub mod agent;
pub mod annotations;
mod config;
pub mod documents;
mod eject;
pub mod filter;
mod inject;
mod original;
mod outcome;
pub mod pid1;
mod resources;
pub mod security;
#[cfg(feature = "server")]
pub mod server;

pub use config::{Config, ConfigError};
pub use eject::eject;
pub use inject::inject;
pub use outcome::{Outcome, Place};
