//! The laptop's file handling on real files, real inotify and real git.

#[path = "local/harness.rs"]
mod harness;
#[path = "local/rules.rs"]
mod rules;
#[path = "local/scan.rs"]
mod scan;
#[path = "local/watch.rs"]
mod watch;
#[path = "local/watch_limits.rs"]
mod watch_limits;
#[path = "local/watch_random.rs"]
mod watch_random;
