//! Sees from outside when a file has its new content: inotify on its directory, then a look at the bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;

/// How long a save may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watch on one file at its destination.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    file: PathBuf,
}

impl Watch {
    /// Watches the directory of `file`, which must be there.
    pub fn new(file: &Path) -> Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = file.parent().context("a file has a directory")?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        inotify.add_watch(directory, flags).with_context(|| format!("watch {}", directory.display()))?;
        Ok(Watch { inotify, file: file.to_path_buf() })
    }

    /// Waits until the file's content is `wanted`, and gives the time of the event that brought it.
    pub fn wait(&self, wanted: &[u8]) -> Result<Instant> {
        let seen = self.wait_for(wanted, PATIENCE)?;
        seen.with_context(|| format!("{} did not change in {PATIENCE:?}", self.file.display()))
    }

    /// The same, but `None` when the time is over.
    pub fn wait_for(&self, wanted: &[u8], patience: Duration) -> Result<Option<Instant>> {
        let deadline = Instant::now() + patience;
        loop {
            let now = Instant::now();
            if self.has(wanted) {
                return Ok(Some(now));
            }
            let left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout)?;
            // All that is there: the content is looked at once for them.
            while self.inotify.read_events().is_ok() {}
        }
    }

    fn has(&self, wanted: &[u8]) -> bool {
        let long_enough = fs::metadata(&self.file).is_ok_and(|meta| meta.len() == wanted.len() as u64);
        long_enough && fs::read(&self.file).is_ok_and(|content| content == wanted)
    }
}

/// Bytes that the loopback interface of this network namespace has carried, both ways, with all headers.
pub fn loopback_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/dev").context("read /proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let received = line.and_then(|line| line.split_whitespace().next()).context("there is no lo")?;
    Ok(received.parse()?)
}
