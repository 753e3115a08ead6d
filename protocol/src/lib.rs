//! What the devsync client and agent say to each other. Pure: no IO, no async, no clock.

pub mod restart;
