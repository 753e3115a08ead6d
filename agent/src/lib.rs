//! The devsync agent: finds the app, applies deltas in its root, restarts it in place.

pub mod restart;
pub(crate) mod sys;
