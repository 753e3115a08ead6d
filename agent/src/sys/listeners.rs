//! Listening TCP sockets: which ones a set of processes holds, and whether they are gone. Best effort where /proc denies it.

use std::collections::HashSet;
use std::fs;

/// The state LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// Inodes of the listening TCP sockets that `pids` hold open.
pub fn held_by(pids: &[i32]) -> HashSet<u64> {
    let all = listening();
    if all.is_empty() {
        return all;
    }
    pids.iter().flat_map(|pid| sockets_of(*pid)).filter(|inode| all.contains(inode)).collect()
}

/// Whether none of `inodes` listens any more.
pub fn all_closed(inodes: &HashSet<u64>) -> bool {
    inodes.is_empty() || listening().is_disjoint(inodes)
}

fn listening() -> HashSet<u64> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| parse(&table))
        .collect()
}

/// Columns: sl local rem st queues timer retransmits uid timeout inode.
fn parse(table: &str) -> Vec<u64> {
    let row = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        (fields.nth(3)? == LISTEN).then(|| fields.nth(5)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn sockets_of(pid: i32) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    entries.filter_map(|entry| inode(fs::read_link(entry.ok()?.path()).ok()?)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_until_it_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let held = held_by(&[std::process::id() as i32]);
        assert!(!held.is_empty());
        assert!(!all_closed(&held));
        drop(listener);
        let own: HashSet<u64> = held.difference(&held_by(&[std::process::id() as i32])).copied().collect();
        assert!(!own.is_empty());
        assert!(all_closed(&own));
    }
}
