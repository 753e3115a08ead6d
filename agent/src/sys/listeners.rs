//! Listening TCP sockets: those of a network namespace, who holds them, and whether they are gone.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fs, io};

use super::proc_task::numbers_in;

/// One listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its socket's inode.
    pub(crate) inode: u64,
}

/// Inodes of the listening TCP sockets that `pids` hold open; best effort where /proc denies it.
pub fn held_by(pids: &[i32]) -> HashSet<u64> {
    let all = listening();
    if all.is_empty() {
        return all;
    }
    let held = pids.iter().flat_map(|pid| inodes_of(*pid).unwrap_or_default());
    held.filter(|inode| all.contains(inode)).collect()
}

/// Whether none of `inodes` listens any more.
pub fn all_closed(inodes: &HashSet<u64>) -> bool {
    inodes.is_empty() || listening().is_disjoint(inodes)
}

fn listening() -> HashSet<u64> {
    TABLES.iter().filter_map(|table| read("self", table).ok()).flatten().map(|found| found.inode).collect()
}

/// The TCP sockets that listen in a process's network namespace.
pub(crate) fn of_namespace(pid: i32) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for table in TABLES {
        match read(&pid.to_string(), table) {
            Ok(listeners) => found.extend(listeners),
            // No IPv6 here.
            Err(e) if e.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The inodes of the sockets that a process holds; an error where that may not be known.
pub(crate) fn inodes_of(pid: i32) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for fd in numbers_in(&format!("/proc/{pid}/fd"))? {
        let link = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(link) => link,
            // The directory may be listed where its links may not be read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
        };
        let inode = link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix("]"));
        inodes.extend(inode.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(inodes)
}

const TABLES: [&str; 2] = ["tcp", "tcp6"];

fn read(process: &str, table: &str) -> io::Result<Vec<Listener>> {
    let text = fs::read_to_string(format!("/proc/{process}/net/{table}"))?;
    Ok(text.lines().skip(1).filter_map(parse).collect())
}

/// Columns: sl local rem st queues timer retransmits uid timeout inode.
fn parse(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    Some(Listener { address: SocketAddr::new(parse_address(address)?, port), inode })
}

/// Words of 32 bits, each written as this machine's byte order has it.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0u8; 16];
    let words = hex.as_bytes().chunks(8);
    for (word, to) in words.zip(bytes.chunks_exact_mut(4)) {
        let value = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        to.copy_from_slice(&value.to_ne_bytes());
    }
    match hex.len() {
        8 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        32 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
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

    #[test]
    fn a_listening_socket_is_found_by_its_inode() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let pid = std::process::id() as i32;
        let found = of_namespace(pid).unwrap().into_iter().find(|l| l.address == address).unwrap();
        assert!(inodes_of(pid).unwrap().contains(&found.inode));
    }
}
