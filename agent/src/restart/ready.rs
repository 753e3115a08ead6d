//! When the app's listening TCP sockets are back after a restart. The kernel has no event for a socket that begins
//! to listen, so this looks again and again, but only while a restart is pending, and never beyond its deadline.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use devsync_protocol::restart::ReadyReport;

use super::descendants;
use crate::sys::proc_task;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// The ports that an app listens on, and the sockets that do it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    ports: BTreeSet<u16>,
    sockets: BTreeSet<u64>,
}

impl Listening {
    /// The sockets that a process and its descendants hold. Where their descriptors may not be read, every
    /// listener of their network namespace is taken for theirs.
    pub fn of(pid: i32) -> io::Result<Self> {
        let listeners = proc_task::listeners(pid)?;
        let own = own_sockets(pid);
        let mine = listeners.iter().filter(|l| own.as_ref().is_none_or(|own| own.contains(&l.inode)));
        Ok(mine.fold(Self::default(), |mut all, listener| {
            all.ports.insert(listener.address.port());
            all.sockets.insert(listener.inode);
            all
        }))
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied()
    }
}

fn own_sockets(pid: i32) -> Option<BTreeSet<u64>> {
    let mut sockets: BTreeSet<u64> = proc_task::socket_inodes(pid).ok()?.into_iter().collect();
    for child in descendants::of(pid) {
        sockets.extend(proc_task::socket_inodes(child).unwrap_or_default());
    }
    Some(sockets)
}

/// Waits until every port of `before` is listened on by a new socket, or until `time` is over.
pub fn wait(pid: i32, before: &Listening, time: Duration) -> ReadyReport {
    wait_while(pid, before, time, || true)
}

/// As [`wait`], but only as long as it `matters`.
pub fn wait_while(pid: i32, before: &Listening, time: Duration, matters: impl Fn() -> bool) -> ReadyReport {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let missing = missing(pid, before);
        let elapsed = begin.elapsed();
        if missing.is_empty() || elapsed >= time || !matters() {
            let back = before.ports.difference(&missing).copied().collect();
            let missing = missing.into_iter().collect();
            return ReadyReport { ports: back, missing, micros: elapsed.as_micros() as u64 };
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The ports that no new socket listens on: one that outlived the restart is not the new program's.
fn missing(pid: i32, before: &Listening) -> BTreeSet<u16> {
    let listeners = proc_task::listeners(pid).unwrap_or_default();
    let new = listeners.iter().filter(|l| !before.sockets.contains(&l.inode)).map(|l| l.address.port());
    let new: BTreeSet<u16> = new.collect();
    before.ports.difference(&new).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    fn bound(address: SocketAddr) -> TcpListener {
        TcpListener::bind(address).expect("binds")
    }

    #[test]
    fn a_port_is_back_with_another_socket_and_missing_with_the_same() {
        let pid = std::process::id() as i32;
        let first = bound("127.0.0.1:0".parse().expect("is an address"));
        let address = first.local_addr().expect("has an address");
        let before = Listening::of(pid).expect("reads");
        let only = Listening { ports: BTreeSet::from([address.port()]), ..before };
        let report = wait(pid, &only, Duration::ZERO);
        assert_eq!((report.ports, report.missing), (vec![], vec![address.port()]));
        drop(first);
        let _second = bound(address);
        let report = wait(pid, &only, Duration::from_secs(5));
        assert_eq!((report.ports, report.missing), (vec![address.port()], vec![]));
    }
}
