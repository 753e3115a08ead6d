//! What the helper is told: everything that it needs, since it can ask nobody; and what it answers.

use serde::{Deserialize, Serialize};

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Nothing: whether the root can be entered.
    Look,
    /// The app's shell, with its `-c`; none for a shell that reads commands.
    Shell(Option<Vec<u8>>),
    /// One program and its arguments.
    Program(Vec<Vec<u8>>),
    /// The toolbox's shell in the agent's own root; its directory is the app's root.
    Beside,
}

/// Why nothing was executed, for a program to tell apart: the first byte of the helper's answer, before its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The app's root cannot be entered: the right is missing.
    Root,
    /// There is no such program.
    Missing,
    Other,
}

impl Refusal {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Root => b'r',
            Self::Missing => b'm',
            Self::Other => b'o',
        }
    }

    pub(super) fn of_byte(byte: u8) -> Self {
        [Self::Root, Self::Missing].into_iter().find(|refusal| refusal.byte() == byte).unwrap_or(Self::Other)
    }
}

/// Sent as postcard over descriptor [`TALK`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) task: Task,
    /// What the app's root is called here: `/proc/PID/root`.
    pub(super) root: Vec<u8>,
    /// `NAME=value` each, as the client wishes.
    pub(super) wishes: Vec<Vec<u8>>,
    /// The app's own.
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
