//! Whole sessions with the real agent as a child, on apps in roots of their own: what is written, what is kept,
//! what is refused, and what a killed agent or a lost app leaves.

#[path = "session/compare.rs"]
mod compare;
#[path = "session/conflicts.rs"]
mod conflicts;
#[path = "session/deltas.rs"]
mod deltas;
#[path = "supervisor/harness.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod harness;
#[path = "session/kills.rs"]
mod kills;
#[path = "session/laptop.rs"]
mod laptop;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/modes.rs"]
mod modes;
#[path = "session/peer.rs"]
mod peer;
#[path = "session/restarts.rs"]
mod restarts;
#[path = "session/second.rs"]
mod second;
#[path = "session/swaps.rs"]
mod swaps;
#[path = "target_world/world.rs"]
mod world;
