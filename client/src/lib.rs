//! Skeleton.

pub mod local;
