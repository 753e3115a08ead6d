//! What /proc says of a process and its threads, read by number; a caller that holds the process by
//! ptrace or pidfd is safe from reuse of the number. Parses, decides nothing.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// What of `/proc/PID/status` matters to a restart. Masks have bit N-1 for signal N.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// The state's letter: `R`, `S`, `T`, `t`, `D`, `Z`.
    pub(crate) state: char,
    /// Real, effective, saved and file uid.
    pub(crate) uids: [u32; 4],
    /// Real, effective, saved and file gid.
    pub(crate) gids: [u32; 4],
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// The parent.
    pub(crate) parent: i32,
    /// The tracer, 0 for none.
    pub(crate) tracer: i32,
    /// The process's number in its own pid namespace.
    pub(crate) inner_pid: i32,
    /// The file mode creation mask; `None` for a zombie.
    pub(crate) umask: Option<u32>,
    /// Pending for this thread or its process.
    pub(crate) pending: u64,
    /// Blocked.
    pub(crate) blocked: u64,
    /// Ignored.
    pub(crate) ignored: u64,
    /// With a handler.
    pub(crate) caught: u64,
    /// Permitted capabilities.
    pub(crate) permitted: u64,
    /// Effective capabilities.
    pub(crate) effective: u64,
    /// 0 off, 1 strict, 2 filter.
    pub(crate) seccomp: u32,
    /// How many seccomp filters; `None` before Linux 5.9.
    pub(crate) seccomp_filters: Option<u32>,
}

/// One mapping of a process.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    /// The first address.
    pub(crate) start: u64,
    /// The address after the last.
    pub(crate) end: u64,
    /// Private and executable.
    pub(crate) private_code: bool,
    /// `[vdso]`, a path, or nothing.
    pub(crate) name: String,
}

/// One listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its socket's inode.
    pub(crate) inode: u64,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The status of a process, or of a thread by its number.
pub(crate) fn status(pid: i32) -> io::Result<Status> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status"))?)
}

/// This process's own status.
pub(crate) fn own_status() -> io::Result<Status> {
    parse_status(&fs::read_to_string("/proc/self/status")?)
}

fn parse_status(text: &str) -> io::Result<Status> {
    let mut status = Status::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let hex = || u64::from_str_radix(value, 16).map_err(|_| invalid(format!("status {key}: {value}")));
        let number = || value.parse::<i32>().map_err(|_| invalid(format!("status {key}: {value}")));
        let numbers = || value.split_whitespace().filter_map(|n| n.parse::<u32>().ok());
        match key {
            "State" => status.state = value.chars().next().unwrap_or('?'),
            "Uid" => numbers().zip(&mut status.uids).for_each(|(from, to)| *to = from),
            "Gid" => numbers().zip(&mut status.gids).for_each(|(from, to)| *to = from),
            "Groups" => status.groups = numbers().collect(),
            "PPid" => status.parent = number()?,
            "TracerPid" => status.tracer = number()?,
            "NSpid" => status.inner_pid = numbers().next_back().unwrap_or(0) as i32,
            "Umask" => status.umask = u32::from_str_radix(value, 8).ok(),
            "SigPnd" | "ShdPnd" => status.pending |= hex()?,
            "SigBlk" => status.blocked = hex()?,
            "SigIgn" => status.ignored = hex()?,
            "SigCgt" => status.caught = hex()?,
            "CapPrm" => status.permitted = hex()?,
            "CapEff" => status.effective = hex()?,
            "Seccomp" => status.seccomp = number()? as u32,
            "Seccomp_filters" => status.seccomp_filters = Some(number()? as u32),
            _ => {}
        }
    }
    Ok(status)
}

/// When the process began, in clock ticks since boot: with the number it names the process.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_whitespace().nth(19).and_then(|f| f.parse().ok());
    field.ok_or_else(|| invalid(format!("stat of process {pid}: {stat}")))
}

/// Where execve put the arguments. Without the rights of a tracer the kernel tells nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Arguments {
    /// How many bytes they took, the final NUL included.
    pub(crate) size: Option<usize>,
    /// How many they were: the word at the bottom of the stack, which no program has a reason to change.
    pub(crate) count: Option<usize>,
}

/// Where execve put the arguments, whatever was written over them since.
pub(crate) fn original_arguments(pid: i32) -> io::Result<Arguments> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let stat = String::from_utf8_lossy(&stat);
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // Numbered from 1 in proc(5), and the state, the first one here, is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok().filter(|value| *value != 0);
    let size = field(49).zip(field(48)).and_then(|(end, start)| end.checked_sub(start));
    Ok(Arguments {
        size: size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0),
        count: field(28).and_then(|bottom| word(pid, bottom)).filter(|count| *count > 0),
    })
}

/// A C int of the process's memory.
fn word(pid: i32, at: u64) -> Option<usize> {
    let mut bytes = [0; 4];
    memory(pid).ok()?.read_exact_at(&mut bytes, at).ok()?;
    usize::try_from(i32::from_ne_bytes(bytes)).ok()
}

/// The numbers of a process's threads.
pub(crate) fn threads(pid: i32) -> io::Result<Vec<i32>> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// Whether a thread belongs to a process.
pub(crate) fn is_thread_of(pid: i32, tid: i32) -> bool {
    fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(false)
}

/// The direct children of a process, the dead ones too.
pub(crate) fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for tid in threads(pid)? {
        match fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")) {
            Ok(text) => children.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok())),
            // A kernel without this list.
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_thread_of(pid, tid) => {
                return children_by_search(pid);
            }
            Err(_) => {}
        }
    }
    Ok(children)
}

fn children_by_search(pid: i32) -> io::Result<Vec<i32>> {
    let is_child = |child: &i32| status(*child).is_ok_and(|status| status.parent == pid);
    Ok(numbers_in("/proc")?.into_iter().filter(is_child).collect())
}

fn numbers_in(directory: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Where the executable lies, seen from here; `" (deleted)"` at the end means it was replaced.
pub(crate) fn executable(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe"))
}

/// The file that is executed.
pub(crate) fn executable_metadata(pid: i32) -> io::Result<Metadata> {
    fs::metadata(format!("/proc/{pid}/exe"))
}

/// The working directory, seen from here.
pub(crate) fn working_directory(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd"))
}

/// The root, seen from here: `/` unless it was changed by chroot in a mount namespace that is also ours.
pub(crate) fn root_path(pid: i32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/root"))
}

/// A descriptor of the root.
pub(crate) fn root(pid: i32) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    Ok(File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}/root"))?.into())
}

/// The arguments.
pub(crate) fn arguments(pid: i32) -> io::Result<Vec<OsString>> {
    Ok(split_nul(&command_line(pid)?))
}

/// The arguments as the kernel shows them, each with its NUL.
pub(crate) fn command_line(pid: i32) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline"))
}

/// The environment that the process was started with.
pub(crate) fn environment(pid: i32) -> io::Result<Vec<OsString>> {
    Ok(split_nul(&fs::read(format!("/proc/{pid}/environ"))?))
}

fn split_nul(bytes: &[u8]) -> Vec<OsString> {
    let Some(bytes) = bytes.strip_suffix(b"\0").or((!bytes.is_empty()).then_some(bytes)) else {
        return Vec::new();
    };
    bytes.split(|b| *b == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The memory, for reading and writing at addresses.
pub(crate) fn memory(pid: i32) -> io::Result<File> {
    File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))
}

/// The mappings, in the order of their addresses.
pub(crate) fn mappings(pid: i32) -> io::Result<Vec<Mapping>> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse_mapping).collect())
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?.as_bytes();
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        private_code: rights.get(2) == Some(&b'x') && rights.get(3) == Some(&b'p'),
        name: words.nth(3).unwrap_or("").trim().to_owned(),
    })
}

/// The descriptors, each with whether exec closes it.
pub(crate) fn descriptors(pid: i32) -> io::Result<Vec<(i32, bool)>> {
    let mut found = Vec::new();
    for fd in numbers_in(&format!("/proc/{pid}/fdinfo"))? {
        // One that was closed since is none.
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|value| i32::from_str_radix(value.trim(), 8).ok());
        let flags = flags.ok_or_else(|| invalid(format!("fdinfo {fd} of process {pid}")))?;
        found.push((fd, flags & libc::O_CLOEXEC != 0));
    }
    Ok(found)
}

/// The signals that each of a process's signalfds takes.
pub(crate) fn signalfds(pid: i32) -> io::Result<Vec<u64>> {
    let mut masks = Vec::new();
    for fd in numbers_in(&format!("/proc/{pid}/fdinfo"))? {
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")) else { continue };
        let mask = info.lines().find_map(|line| line.strip_prefix("sigmask:"));
        masks.extend(mask.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()));
    }
    Ok(masks)
}

/// The number of the call that a stopped or sleeping thread is in.
pub(crate) fn current_syscall(tid: i32) -> io::Result<Option<i64>> {
    let text = fs::read_to_string(format!("/proc/{tid}/syscall"))?;
    Ok(text.split_whitespace().next().and_then(|word| word.parse().ok()).filter(|number| *number >= 0))
}

/// A number that every execve changes: a digest of the addresses that the kernel told the program.
pub(crate) fn program_instance(pid: i32) -> io::Result<u64> {
    let digest = blake3::hash(&fs::read(format!("/proc/{pid}/auxv"))?);
    let mut word = [0; 8];
    word.copy_from_slice(&digest.as_bytes()[..8]);
    Ok(u64::from_le_bytes(word))
}

/// The inodes of the sockets that a process holds; an error where that may not be known.
pub(crate) fn socket_inodes(pid: i32) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for fd in numbers_in(&format!("/proc/{pid}/fd"))? {
        let link = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(link) => link,
            // The directory may be listed where its links may not be read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
        };
        let inode = link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix("]"));
        let inode = inode.and_then(|number| number.parse::<u64>().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

/// The TCP sockets that listen in a process's network namespace.
pub(crate) fn listeners(pid: i32) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/{pid}/net/{table}")) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(parse_listener)),
            // No IPv6 here.
            Err(e) if e.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn parse_listener(line: &str) -> Option<Listener> {
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

/// What identifies the process's mount namespace.
pub(crate) fn mount_namespace(pid: i32) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/mnt"))?.ino())
}

/// Whether the process may be dumped: /proc belongs to root, else to the process's effective user.
pub(crate) fn is_owned_by(pid: i32, uid: u32) -> io::Result<bool> {
    Ok(fs::metadata(format!("/proc/{pid}"))?.uid() == uid)
}

/// Yama's ptrace_scope; 0 where there is no Yama.
pub(crate) fn yama_scope() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found_by_its_inode() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = socket.local_addr().expect("has an address");
        let pid = std::process::id() as i32;
        let found =
            listeners(pid).expect("reads").into_iter().find(|l| l.address == address).expect("is there");
        assert!(socket_inodes(pid).expect("reads").contains(&found.inode));
    }

    #[test]
    fn arguments_keep_their_empty_ones() {
        assert_eq!(split_nul(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(split_nul(b"a"), ["a"]);
        assert!(split_nul(b"").is_empty());
    }

    #[test]
    fn the_original_arguments_of_this_process_are_found() {
        let pid = std::process::id() as i32;
        let found = original_arguments(pid).expect("reads");
        assert_eq!(found.count, Some(std::env::args_os().len()));
        assert_eq!(found.size, Some(command_line(pid).expect("reads").len()));
    }

    #[test]
    fn own_status_is_understood() {
        let status = own_status().expect("reads");
        assert!("RSt".contains(status.state), "{status:?}");
        assert!(status.umask.is_some() && status.inner_pid > 0);
    }
}
