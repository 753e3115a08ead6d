//! The devsync agent: finds the app beside it, writes in the app's root, restarts it in place.

pub mod sys;
pub mod target;
