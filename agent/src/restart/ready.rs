//! When the app's listening TCP sockets are back after a restart. The kernel has no event for a socket that begins
//! to listen, so this looks again and again, but only while a restart is pending, and never beyond its deadline.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use devsync_protocol::restart::ReadyReport;

use super::descendants;
use crate::sys::listeners;

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
        let listeners = listeners::of_namespace(pid)?;
        let own = own_sockets(pid);
        let mine = listeners.iter().filter(|l| own.as_ref().is_none_or(|own| own.contains(&l.inode)));
        Ok(mine.fold(Self::default(), |mut all, listener| {
            all.ports.insert(listener.address.port());
            all.sockets.insert(listener.inode);
            all
        }))
    }

    /// For a program that reloads in its process, and may keep its sockets: they count as those of the new one.
    pub fn kept(mut self) -> Self {
        self.sockets.clear();
        self
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied()
    }
}

fn own_sockets(pid: i32) -> Option<BTreeSet<u64>> {
    let mut sockets: BTreeSet<u64> = listeners::inodes_of(pid).ok()?.into_iter().collect();
    for child in descendants::of(pid) {
        sockets.extend(listeners::inodes_of(child).unwrap_or_default());
    }
    Some(sockets)
}

/// Waits until every port of `before` is listened on by a new socket, or until `time` is over. Without any port that
/// is at once.
pub fn wait(pid: i32, before: &Listening, time: Duration) -> ReadyReport {
    wait_unless(pid, before, time, || false)
}

/// [`wait`], which also ends when something else is to be done, or nothing can come back any more: `stop` says so, and
/// is asked at every look. The report then has what was there.
pub fn wait_unless(pid: i32, before: &Listening, time: Duration, stop: impl Fn() -> bool) -> ReadyReport {
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        // Asked before the look, so that what it ends on is no older.
        let over = stop() || begin.elapsed() >= time;
        let missing = missing(pid, before);
        if missing.is_empty() || over {
            let back = before.ports.difference(&missing).copied().collect();
            let missing = missing.into_iter().collect();
            return ReadyReport { ports: back, missing, micros: begin.elapsed().as_micros() as u64 };
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The ports that no new socket listens on: one that outlived the restart is not the new program's.
fn missing(pid: i32, before: &Listening) -> BTreeSet<u16> {
    let listeners = listeners::of_namespace(pid).unwrap_or_default();
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

    #[test]
    fn a_program_that_keeps_its_socket_over_a_reload_is_ready() {
        let pid = std::process::id() as i32;
        let socket = bound("127.0.0.1:0".parse().expect("is an address"));
        let port = socket.local_addr().expect("has an address").port();
        let before = Listening { ports: BTreeSet::from([port]), ..Listening::of(pid).expect("reads") };
        let report = wait(pid, &before.kept(), Duration::ZERO);
        assert_eq!((report.ports, report.missing), (vec![port], vec![]));
    }

    #[test]
    fn the_wait_ends_when_it_is_told_to_and_needs_no_port() {
        let pid = std::process::id() as i32;
        let socket = bound("127.0.0.1:0".parse().expect("is an address"));
        let port = socket.local_addr().expect("has an address").port();
        let before = Listening { ports: BTreeSet::from([port]), ..Listening::of(pid).expect("reads") };
        let looks = std::cell::Cell::new(0);
        let stop = || looks.replace(looks.get() + 1) == 3;
        let report = wait_unless(pid, &before, Duration::MAX, stop);
        assert_eq!((report.missing, looks.get()), (vec![port], 4));
        let report = wait(pid, &Listening::default(), Duration::MAX);
        assert_eq!((report.ports, report.missing), (vec![], vec![]));
    }
}
