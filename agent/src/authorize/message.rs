//! What is said once both ends are proven: one question, one answer.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest message; a socket keeps messages apart, so this is all that is ever held.
pub(super) const LONGEST: usize = 16 * 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Register(Registration),
    /// End in order: nothing starts an ephemeral container's agent anew.
    Stop,
}

/// Register this key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Registration {
    /// As in authorized_keys, without options.
    pub(super) key: String,
    /// As `--target` takes it.
    pub(super) target: Option<String>,
    pub(super) who: String,
    pub(super) take_over: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// `contract::Authorized`, as text.
    Registered(String),
    Refused(String),
    Stopping,
}

/// None for one that is too long.
pub(super) fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    postcard::to_stdvec(message).ok().filter(|bytes| bytes.len() <= LONGEST)
}

pub(super) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    postcard::from_bytes(bytes).ok()
}
