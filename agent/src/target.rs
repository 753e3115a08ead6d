//! The app beside the agent: which process it is, its root, and everything done to files below it.
//! No path of the app is ever given to a plain path call; what to write is decided elsewhere.

pub mod access;
pub mod entry;
pub mod error;
pub mod find;
pub mod identity;
pub mod ids;
pub mod metadata;
pub mod parent;
pub mod path;
pub mod report;
pub mod root;
pub mod shown;
pub mod sockets;
pub mod temp;
mod walk;
mod writable;
