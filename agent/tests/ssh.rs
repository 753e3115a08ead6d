//! The SSH server against the real OpenSSH client, and against raw sockets.

#[path = "ssh/server.rs"]
mod server;

#[path = "ssh/limits.rs"]
mod limits;
#[path = "ssh/login.rs"]
mod login;
#[path = "ssh/refusals.rs"]
mod refusals;
#[path = "ssh/transfer.rs"]
mod transfer;
