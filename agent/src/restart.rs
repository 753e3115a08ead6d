//! Restarts the app: each way in its own module.

pub mod supervise;
