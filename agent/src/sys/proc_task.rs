//! What /proc says of a process and its threads, read by number; a caller that holds the process by
//! ptrace or pidfd is safe from reuse of the number. Parses, decides nothing.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::proc::{Stat, Status};

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

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The status of a process, or of a thread by its number.
pub(crate) fn status(pid: i32) -> io::Result<Status> {
    read_status(&pid.to_string())
}

/// This process's own status.
pub(crate) fn own_status() -> io::Result<Status> {
    read_status("self")
}

fn read_status(process: &str) -> io::Result<Status> {
    let text = fs::read(format!("/proc/{process}/status"))?;
    Status::parse(&text).ok_or_else(|| invalid(format!("status of process {process}")))
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    Stat::parse(&text).ok_or_else(|| invalid(format!("stat of process {pid}")))
}

/// When the process began, in clock ticks since boot: with the number it names the process.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid).map(|stat| stat.start_time)
}

/// The process that its end is told to; 0 where that is outside of this PID namespace.
pub fn parent(pid: i32) -> io::Result<i32> {
    stat(pid).map(|stat| stat.parent.cast_signed())
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
    let is_child = |child: &i32| parent(*child).is_ok_and(|parent| parent == pid);
    Ok(numbers_in("/proc")?.into_iter().filter(is_child).collect())
}

pub(super) fn numbers_in(directory: &str) -> io::Result<Vec<i32>> {
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

/// What identifies the process's mount namespace.
pub(crate) fn mount_namespace(pid: i32) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/mnt"))?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(status.umask.is_some() && !status.namespace_pids.is_empty());
    }
}
