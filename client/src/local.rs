//! The laptop's side of a sync that knows files: which paths count, what they are, and what changed.
//!
//! Knows nothing of pods, sessions or commands. Everything here works on paths relative to one sync root;
//! the only thing it writes is its own index in the user's cache directory.

mod dockerignore;
mod gitdir;
mod glob;
pub mod guard;
mod ignorefile;
pub mod index;
pub mod platform;
pub mod read;
mod refresh;
pub mod rules;
pub mod scan;
mod walk;
pub mod watch;

pub use guard::{Guard, Verdict as GuardVerdict};
pub use read::{Body, Contents, ReadError, read_stable};
pub use refresh::Update;
pub use rules::{RuleOptions, Rules, Verdict};
pub use scan::{Scan, ScanError, Scanner, Skipped, Why};
pub use watch::{Change, Note, Quiet, Rescan, Timing, WatchError, Watcher};
