//! `/proc/PID` of one process, opened once: everything is read through that descriptor, so a reused PID is
//! never read. It reports what is there and decides nothing.

mod stat;
mod status;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

pub use stat::Stat;
pub use status::{Status, USUAL_UMASK};

/// More than a stat, status or cgroup file ever holds.
const SMALL: u64 = 256 * 1024;
/// 100,000 mounts (`fs.mount-max`) of some 100 bytes each.
const MOUNTS: u64 = 16 * 1024 * 1024;
/// Arguments and environment together may take 3/4 of an 8 MiB stack (execve(2)).
const STRINGS: u64 = 8 * 1024 * 1024;
/// What is read and kept of them where only the first count.
const FIRST_BYTES: u64 = 16 * 1024;
const FIRST_WORDS: usize = 64;
/// More threads or processes than a default kernel allows (`pid_max` is 4194304 at most).
const MAX_IDS: usize = 4_194_304;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcError {
    #[error("process {pid} does not exist (any more)")]
    Vanished { pid: u32 },
    #[error("cannot read {what} of process {pid}: {errno}")]
    Read { pid: u32, what: &'static str, errno: Errno },
    #[error("{what} of process {pid} is not what the kernel's documentation says")]
    Malformed { pid: u32, what: &'static str },
    #[error("{what} of process {pid} is longer than {limit} bytes")]
    TooLong { pid: u32, what: &'static str, limit: u64 },
    #[error("/proc is not a proc file system here: {0}")]
    NoProc(Errno),
}

impl ProcError {
    /// The file is there and the thread's ids do not permit to read it.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Read { errno: Errno::EACCES | Errno::EPERM, .. })
    }
}

/// A namespace that a process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Mount,
    Pid,
    Network,
    User,
}

/// A descriptor of `/proc/PID`, bound to one process for ever.
pub struct ProcDir {
    pid: u32,
    dir: OwnedFd,
}

impl fmt::Debug for ProcDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProcDir").field(&self.pid).finish()
    }
}

impl AsFd for ProcDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl ProcDir {
    pub fn open(pid: u32) -> Result<Self, ProcError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(AT_FDCWD, format!("/proc/{pid}").as_str(), flags, Mode::empty())
            .map_err(|errno| Self::error(pid, "the directory", errno))?;
        let kind = fstatfs(&dir).map_err(ProcError::NoProc)?.filesystem_type();
        if kind == PROC_SUPER_MAGIC { Ok(Self { pid, dir }) } else { Err(ProcError::NoProc(Errno::ENODEV)) }
    }

    /// That of the calling process.
    pub fn own() -> Result<Self, ProcError> {
        Self::open(std::process::id())
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What a person calls its root directory; not for opening it.
    pub fn root_path(&self) -> String {
        format!("/proc/{}/root", self.pid)
    }

    pub fn stat(&self) -> Result<Stat, ProcError> {
        let malformed = ProcError::Malformed { pid: self.pid, what: "stat" };
        Stat::parse(&self.read("stat", SMALL)?).ok_or(malformed)
    }

    pub fn status(&self) -> Result<Status, ProcError> {
        let malformed = ProcError::Malformed { pid: self.pid, what: "status" };
        Status::parse(&self.read("status", SMALL)?).ok_or(malformed)
    }

    /// Its arguments; empty for a kernel thread and a zombie. A process can overwrite them (setproctitle).
    pub fn cmdline(&self) -> Result<Vec<Vec<u8>>, ProcError> {
        Ok(split(&self.read("cmdline", STRINGS)?))
    }

    /// The first of its arguments, for what is only shown or told apart: of all processes together they are many, and a
    /// process may make millions of them.
    pub fn first_words(&self) -> Result<Vec<Vec<u8>>, ProcError> {
        let mut first = split(&self.head("cmdline", FIRST_BYTES)?);
        first.truncate(FIRST_WORDS);
        Ok(first)
    }

    /// Its environment at its last execve, `NAME=value` each.
    pub fn environ(&self) -> Result<Vec<Vec<u8>>, ProcError> {
        Ok(split(&self.read("environ", STRINGS)?))
    }

    /// The command's name: at most 15 bytes, freely chosen by the process.
    pub fn comm(&self) -> Result<Vec<u8>, ProcError> {
        let mut comm = self.read("comm", SMALL)?;
        comm.pop_if(|b| *b == b'\n');
        Ok(comm)
    }

    pub fn cgroup(&self) -> Result<Vec<u8>, ProcError> {
        self.read("cgroup", SMALL)
    }

    /// The executable's path in the process's own root, without the kernel's mark for a deleted file.
    pub fn exe(&self) -> Result<Vec<u8>, ProcError> {
        let path = self.link("exe")?;
        let path = path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec();
        self.in_own_root(path)
    }

    /// The working directory's path in the process's own root.
    pub fn cwd(&self) -> Result<Vec<u8>, ProcError> {
        let path = self.link("cwd")?;
        self.in_own_root(path)
    }

    /// The process's root directory, as a descriptor to start from.
    pub fn open_root(&self) -> Result<OwnedFd, ProcError> {
        self.open_at("root", OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// The very file that it executes, even when its name has another file by now.
    pub fn open_exe(&self) -> Result<File, ProcError> {
        self.open_at("exe", OFlag::O_RDONLY).map(File::from)
    }

    /// The inode number of a namespace: equal numbers are the same namespace.
    pub fn namespace(&self, namespace: Namespace) -> Result<u64, ProcError> {
        let what = match namespace {
            Namespace::Mount => "ns/mnt",
            Namespace::Pid => "ns/pid",
            Namespace::Network => "ns/net",
            Namespace::User => "ns/user",
        };
        let stat = fstatat(&self.dir, what, AtFlags::empty()).map_err(|e| Self::error(self.pid, what, e))?;
        Ok(stat.st_ino)
    }

    /// The kernel's numbers of the mounts at the process's `/`. A number belongs to one mount while that lives, and a
    /// mount to one namespace: equal numbers are the same mount namespace. Everybody may read this of everybody
    /// (proc(5), `mountinfo`); empty where the root directory is no mount point.
    pub fn root_mounts(&self) -> Result<Vec<u32>, ProcError> {
        Ok(mounts_at_root(&self.read("mountinfo", MOUNTS)?))
    }

    /// The label that AppArmor or SELinux gave it; None without such a module.
    pub fn security_label(&self) -> Option<Vec<u8>> {
        let label = self.read("attr/current", SMALL).ok()?;
        let end = label.iter().rposition(|b| !matches!(b, b'\n' | 0)).map_or(0, |at| at + 1);
        label.get(..end).filter(|label| !label.is_empty()).map(<[u8]>::to_vec)
    }

    pub fn tasks(&self) -> Result<Vec<u32>, ProcError> {
        let dir = self.open_at("task", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        numeric_names(dir).map_err(|errno| Self::error(self.pid, "task", errno))
    }

    /// Whether its files belong to root, as those of a process do that is not dumpable (proc(5)). It says
    /// nothing about a process of root.
    pub fn belongs_to_root(&self) -> Result<bool, ProcError> {
        // The directory itself always belongs to the effective uid; only what is in it tells.
        let what = "environ";
        let found = fstatat(&self.dir, what, AtFlags::AT_SYMLINK_NOFOLLOW);
        found.map(|s| s.st_uid == 0).map_err(|e| Self::error(self.pid, what, e))
    }

    fn link(&self, what: &'static str) -> Result<Vec<u8>, ProcError> {
        let target = readlinkat(&self.dir, what).map_err(|errno| Self::error(self.pid, what, errno))?;
        Ok(target.into_vec())
    }

    /// Links are told as seen from the reader: below a chroot its path comes first.
    fn in_own_root(&self, path: Vec<u8>) -> Result<Vec<u8>, ProcError> {
        let root = self.link("root")?;
        Ok(below(&root, &path).unwrap_or(path))
    }

    fn read(&self, what: &'static str, limit: u64) -> Result<Vec<u8>, ProcError> {
        let bytes = self.head(what, limit + 1)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
            Ok(bytes)
        } else {
            Err(ProcError::TooLong { pid: self.pid, what, limit })
        }
    }

    /// At most its first `limit` bytes.
    fn head(&self, what: &'static str, limit: u64) -> Result<Vec<u8>, ProcError> {
        let file = File::from(self.open_at(what, OFlag::O_RDONLY)?);
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            Self::error(self.pid, what, errno)
        })?;
        Ok(bytes)
    }

    fn open_at(&self, what: &'static str, flags: OFlag) -> Result<OwnedFd, ProcError> {
        openat(&self.dir, what, flags | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Self::error(self.pid, what, errno))
    }

    fn error(pid: u32, what: &'static str, errno: Errno) -> ProcError {
        match errno {
            // A dead process's directory is empty, and what was open in it says ESRCH.
            Errno::ENOENT | Errno::ESRCH => ProcError::Vanished { pid },
            errno => ProcError::Read { pid, what, errno },
        }
    }
}

/// The processes that this PID namespace shows, unsorted.
pub fn pids() -> Result<Vec<u32>, ProcError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = open("/proc", flags, Mode::empty()).map_err(ProcError::NoProc)?;
    numeric_names(dir).map_err(ProcError::NoProc)
}

/// Opens again, for reading or writing, what `fd` (O_PATH too) refers to: no name is looked up, so nothing
/// can be exchanged in between.
pub fn reopen(fd: impl AsFd, flags: OFlag) -> Result<OwnedFd, Errno> {
    open(by_descriptor(&fd).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// A path that means what `fd` refers to, for calls that take no O_PATH descriptor.
pub(crate) fn by_descriptor(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// `kernel.yama.ptrace_scope`; None where Yama is not compiled in.
pub fn yama_scope() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

/// How many directories one user may watch, and how many watchers that user may have.
pub fn inotify_limits() -> Option<(u64, u64)> {
    let read =
        |name| std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok();
    Some((read("max_user_watches")?, read("max_user_instances")?))
}

fn numeric_names(dir: OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut ids = Vec::new();
    for entry in Dir::from_fd(dir)?.into_iter().take(MAX_IDS) {
        let name = entry?;
        ids.extend(name.file_name().to_str().ok().and_then(|n| n.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Fields of a line: mount, parent, device, root in its file system, mount point, …
fn mounts_at_root(table: &[u8]) -> Vec<u32> {
    let number = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b' ');
        let mount = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        (fields.nth(3)? == b"/").then_some(mount)
    };
    table.split(|b| *b == b'\n').filter_map(number).collect()
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let strings = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { strings.split(|b| *b == 0).map(<[u8]>::to_vec).collect() }
}

/// `path` as a process whose root is `root` says it.
fn below(root: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
    match rest.first() {
        None => Some(b"/".to_vec()),
        Some(b'/') => Some(rest.to_vec()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(split(b"a\0\0b\0"), [b"a".to_vec(), Vec::new(), b"b".to_vec()]);
        assert_eq!(split(b"\0"), [Vec::<u8>::new()]);
        assert!(split(b"").is_empty());
    }

    #[test]
    fn mounts_at_the_root_are_told_from_others() {
        let table = b"529 417 0:98 / / ro,relatime master:1 - overlay overlay rw,lowerdir=/a\n\
            530 529 0:101 / /proc rw - proc proc rw\n\
            531 530 0:101 /bus /proc/bus ro - proc proc rw\nx y z\n77\n";
        assert_eq!(mounts_at_root(table), [529]);
        assert!(mounts_at_root(b"").is_empty());
    }

    #[test]
    fn a_chroot_is_taken_off_a_path() {
        assert_eq!(below(b"/jail", b"/jail/app/x").as_deref(), Some(&b"/app/x"[..]));
        assert_eq!(below(b"/jail", b"/jail").as_deref(), Some(&b"/"[..]));
        assert_eq!(below(b"/", b"/app/x").as_deref(), Some(&b"/app/x"[..]));
        assert_eq!(below(b"/jail", b"/jailer/x"), None);
    }

    #[test]
    fn the_own_process_is_read() {
        let own = ProcDir::own().expect("own process");
        assert_eq!(own.status().expect("status").thread_group, std::process::id());
        assert!(own.stat().expect("stat").start_time > 0);
        assert!(own.tasks().expect("tasks").contains(&std::process::id()));
        assert_eq!(own.exe().ok(), std::env::current_exe().ok().map(|p| p.into_os_string().into_vec()));
        assert_ne!(
            own.namespace(Namespace::Mount).expect("mnt"),
            own.namespace(Namespace::Pid).expect("pid")
        );
    }

    #[test]
    fn a_pid_that_nobody_has_is_vanished() {
        assert_eq!(ProcDir::open(4_194_305).err(), Some(ProcError::Vanished { pid: 4_194_305 }));
    }
}
