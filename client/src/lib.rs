//! The devsync command line client: watches the laptop's files, sends what changed, shows what happens.
//!
//! Portable: nothing Linux-only outside of `cfg`. Only a command module knows all other modules.

pub mod app;
pub mod build;
pub mod cli;
pub mod config;
pub mod dirs;
pub mod elf;
pub mod error;
pub mod local;
pub mod mapping;
pub mod project;
pub mod report;
pub mod rule;
pub mod session;
pub mod transport;
