//! `devsync-agent serve` and `authorize` as real processes, with the real OpenSSH client: who may register a key,
//! what it is good for, and what happens when one of them is late, gone or an impostor.

#[path = "session/peer.rs"]
#[allow(dead_code)]
mod peer;
#[path = "authorize/proof.rs"]
mod proof;
#[path = "authorize/sidecar.rs"]
mod sidecar;
#[path = "authorize/takeover.rs"]
mod takeover;
#[path = "authorize/timing.rs"]
mod timing;
