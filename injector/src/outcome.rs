//! What goes into an injection beside the object, and what comes out of it.

use serde_json::Value;

use crate::security::Level;

/// What is known of the namespace and of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The Pod Security level that the namespace enforces.
    pub level: Level,
    /// True where an init container with `restartPolicy: Always` is a sidecar (Kubernetes 1.29 and later).
    pub native_sidecars: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The changed object; `None` where it stays as it came.
    pub object: Option<Value>,
    /// What was done, one line each, for a person.
    pub did: Vec<String>,
    /// What was not done, one line each: the object, the reason, the way out.
    pub warnings: Vec<String>,
}
