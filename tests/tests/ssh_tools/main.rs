//! The agent's SSH server under stock tools: OpenSSH, rsync, sshfs, tmux, paramiko and asyncssh, with an app in
//! namespaces of its own.

mod beside;
mod editors;
mod escapes;
mod files;
mod forwards;
mod inetd;
mod limits;
mod login;
mod python;
mod rig;
mod scratch;
mod terminal;
