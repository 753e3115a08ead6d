//! What the helper is told: everything that it needs, since it can ask nobody.

use serde::{Deserialize, Serialize};

/// Sent as postcard over descriptor [`TALK`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// For the shell's `-c`; none for a shell of its own.
    pub(super) command: Option<Vec<u8>>,
    /// `NAME=value` each.
    pub(super) environment: Vec<Vec<u8>>,
    /// In the app's root.
    pub(super) directory: Vec<u8>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    /// Capabilities, as bits.
    pub(super) permitted: u64,
    pub(super) bounding: u64,
    pub(super) no_new_privileges: bool,
    /// Standard input is a terminal to be controlled by.
    pub(super) terminal: bool,
    /// The descriptor of the root is not the agent's own root.
    pub(super) other_root: bool,
    /// The limit of open files that the agent was started with.
    pub(super) open_files: Option<(u64, u64)>,
}

/// The plan comes here, and what went wrong goes back; closed by a successful execve.
pub(super) const TALK: i32 = 3;
/// The app's root directory.
pub(super) const ROOT: i32 = 4;
/// The directory with the agent's own programs; may be missing.
pub(super) const TOOLBOX: i32 = 5;
/// More than arguments and environment can have.
pub(super) const LONGEST: u64 = 16 * 1024 * 1024;
