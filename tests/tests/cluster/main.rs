//! `devsync` against pods of a real cluster: what a developer does, and what must not happen to them.
//! `scripts/test cluster` brings the cluster and the images; the programs are those of this build.

mod golden;
mod pods;
mod tools;
mod webhook;
