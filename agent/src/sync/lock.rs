//! One session at a time writes to a target, and to a sync root: a lock file with the holder's name in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Longest name of a holder that is read back, in bytes.
const MAX_HOLDER: u64 = 512;

#[derive(Debug, Error)]
pub(crate) enum LockError {
    #[error("{0}")]
    Held(String),
    #[error("the lock {path} cannot be taken")]
    Io { path: String, source: io::Error },
}

/// Held until it is dropped; the kernel releases it when the agent dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

/// Between two tries for a lock that another holds: the kernel has no wait with an end.
const PAUSE: Duration = Duration::from_millis(20);

impl Lock {
    /// Takes the lock as soon as it is free, or tells after `patience` who holds it.
    pub(crate) fn wait(path: &Path, holder: &str, patience: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::take(path, holder) {
                Err(LockError::Held(_)) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                taken => return taken,
            }
        }
    }

    /// Takes the lock at `path`, or tells who holds it. `holder` is written into the file.
    pub(crate) fn take(path: &Path, holder: &str) -> Result<Self, LockError> {
        let broken = |source| LockError::Io { path: path.display().to_string(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            .map_err(broken)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let written = lock.set_len(0).and_then(|()| lock.write_all(holder.as_bytes()));
                written.map_err(broken)?;
                Ok(Self(lock))
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let mut name = Vec::new();
                file.take(MAX_HOLDER).read_to_end(&mut name).map_err(broken)?;
                // The holder may not have written its name yet.
                let name = if name.is_empty() { b"another client".to_vec() } else { name };
                Err(LockError::Held(devsync_protocol::path::display(&name)))
            }
            Err((_, errno)) => Err(broken(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let first = Lock::take(&path, "ann (process 7)")?;
        assert!(matches!(Lock::take(&path, "bob"), Err(LockError::Held(who)) if who == "ann (process 7)"));
        drop(first);
        Lock::take(&path, "bob")?;
        Ok(())
    }
}
