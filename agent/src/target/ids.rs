//! `devsync-agent ids`: as whom the app runs, for a client that cannot read it from the pod's spec and must give the
//! agent the same ids. `/proc/PID/status` may be read by anybody in the PID namespace.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::find::{FindError, Query, find};
use crate::sys::proc::{ProcDir, ProcError};

/// What kubelet shows in a container's status once it has ended, so that nobody needs the right to read its log.
const TERMINATION_LOG: &str = "/dev/termination-log";

#[derive(Debug, clap::Args)]
pub struct IdsArgs {
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
}

#[derive(Debug, thiserror::Error)]
pub enum IdsError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error("process {pid} has different real and effective ids")]
    Mixed { pid: u32 },
    #[error("standard output")]
    Output(#[from] io::Error),
}

/// Prints `ids UID:GID`.
pub fn print(args: &IdsArgs) -> Result<(), IdsError> {
    let pid = find(&args.target)?.app;
    let (uid, gid) = ProcDir::open(pid)?.status()?.uniform_ids().ok_or(IdsError::Mixed { pid })?;
    let line = format!("{} {uid}:{gid}\n", devsync_protocol::contract::IDS);
    // Outside of a pod there is none; the line on standard output says the same.
    if let Ok(mut file) = OpenOptions::new().write(true).open(TERMINATION_LOG) {
        let _ = file.write_all(line.as_bytes());
    }
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}
