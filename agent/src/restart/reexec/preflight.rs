//! All that can be known before the app is touched: the executable as the app's root has it, and the app itself.
//! Changes nothing; what it accepts may still fail, and is then undone.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use devsync_protocol::restart::{Refusal, RefusalKind};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

use super::elf;
use super::error::ReexecError;
use super::recorded::Recorded;
use super::retitled;
use crate::sys::proc::Status;
use crate::sys::proc_task;
use crate::sys::ptrace;

/// An interpreter of an interpreter of a script is as deep as the kernel goes.
const MAX_INTERPRETERS: u32 = 4;

/// The file that will be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// A script: then its interpreter is what runs.
    script: bool,
}

/// What was found out about the app.
pub(super) struct Preflight {
    pub(super) status: Status,
    pub(super) executable: Identity,
}

/// Checks the app and its executable.
pub(super) fn check(pid: i32, start_time: u64, recorded: &Recorded) -> Result<Preflight, ReexecError> {
    let status = app(pid, start_time)?;
    if let Some(evidence) = &recorded.retitled {
        return Err(ReexecError::Refused(retitled::refusal(pid, evidence)));
    }
    let root = proc_task::root(pid).map_err(|source| ReexecError::Proc { what: "root", pid, source })?;
    let executable = executable(&root, &recorded.exe, &status, 0)?;
    Ok(Preflight { status, executable })
}

/// Checks that the process is the one that was chosen, and one that injected calls can work in.
pub(super) fn app(pid: i32, start_time: u64) -> Result<Status, ReexecError> {
    match proc_task::start_time(pid) {
        Ok(time) if time == start_time => {}
        Ok(_) => return Err(ReexecError::Replaced { pid }),
        Err(_) => return Err(gone(pid)),
    }
    let status = proc_task::status(pid).map_err(|_| gone(pid))?;
    if status.state == 'Z' && proc_task::threads(pid).is_ok_and(|threads| threads.len() <= 1) {
        return Err(gone(pid));
    }
    let own = proc_task::own_status().map_err(|source| ReexecError::Proc { what: "status", pid, source })?;
    if has_own_filters(&status, &own) {
        return Err(ReexecError::Refused(Refusal {
            kind: RefusalKind::AppSeccomp,
            cause: format!(
                "process {pid} installed seccomp filters of its own, which could kill it in an injected call"
            ),
            hint: "start the app under devsync-run, and use restart mode supervise".into(),
        }));
    }
    Ok(status)
}

fn gone(pid: i32) -> ReexecError {
    ReexecError::Refused(Refusal {
        kind: RefusalKind::Gone,
        cause: format!("process {pid} has ended"),
        hint: "wait until the container is started again".into(),
    })
}

/// Whether the app has more filters than this process, which has those of its container. Only numbers can be seen:
/// an app without a profile that installed one filter by itself looks like one under the agent's profile. Modes and
/// NoNewPrivs say no more of it, as they differ between containers with the same profile; the same profile in both is
/// the usual case, and is not refused. What stays is caught by the calls before execve, whose failure is undone,
/// except where the app's filter kills.
fn has_own_filters(app: &Status, own: &Status) -> bool {
    const STRICT: u32 = 1;
    match (app.seccomp_filters, own.seccomp_filters) {
        _ if app.seccomp == STRICT => true,
        (Some(theirs), Some(ours)) => theirs > ours,
        _ => app.seccomp > own.seccomp,
    }
}

fn executable(root: &OwnedFd, path: &Path, app: &Status, depth: u32) -> Result<Identity, ReexecError> {
    let handle = open(root, path, OFlag::O_PATH)?;
    let metadata = handle.metadata().map_err(|source| ReexecError::Open { path: path.to_owned(), source })?;
    regular(path, &metadata)?;
    permitted(path, &metadata, app)?;
    kernel_check(path, &handle)?;
    let mut script = false;
    // An executable that may not be read is not looked into.
    if let Ok(file) = open(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        let needed = elf::interpreter(&file, metadata.len());
        let needed = needed.map_err(|source| ReexecError::Binary { path: path.to_owned(), source })?;
        if let Some(interpreter) = needed
            && depth < MAX_INTERPRETERS
        {
            script = executable(root, &interpreter, app, depth + 1).map(|_| is_script(&file)).map_err(
                |source| ReexecError::Interpreter {
                    path: path.to_owned(),
                    interpreter,
                    source: Box::new(source),
                },
            )?;
        }
    }
    Ok(Identity { device: metadata.dev(), inode: metadata.ino(), script })
}

fn is_script(file: &File) -> bool {
    let mut start = [0; 2];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut start, 0).is_ok() && &start == b"#!"
}

/// Opens a file of the app's root as the app itself would find it.
fn open(root: &OwnedFd, path: &Path, flags: OFlag) -> Result<File, ReexecError> {
    let flags = flags | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let opened = match nix::fcntl::openat2(root.as_fd(), path, how) {
        // No openat2 here. Nothing is written by what follows, so plain resolution can only err on the safe side.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let below = path.strip_prefix("/").unwrap_or(path);
            nix::fcntl::openat(root.as_fd(), below, flags, nix::sys::stat::Mode::empty())
        }
        other => other,
    };
    opened.map(File::from).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR => ReexecError::Missing { path: path.to_owned() },
        other => ReexecError::Open { path: path.to_owned(), source: other.into() },
    })
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), ReexecError> {
    let kind = metadata.file_type();
    let other = match () {
        () if kind.is_file() && metadata.len() == 0 => {
            return Err(ReexecError::Empty { path: path.to_owned() });
        }
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    Err(ReexecError::NotRegular { path: path.to_owned(), kind: other })
}

/// Whether the app's own ids may execute the file; ours may be others.
fn permitted(path: &Path, metadata: &Metadata, app: &Status) -> Result<(), ReexecError> {
    let (uid, gid) = (app.uids[3], app.gids[3]);
    let mode = metadata.mode() & 0o7777;
    let bits = match () {
        () if uid == 0 => 0o111,
        () if metadata.uid() == uid => 0o100,
        () if metadata.gid() == gid || app.groups.contains(&metadata.gid()) => 0o010,
        () => 0o001,
    };
    if mode & bits == 0 {
        return Err(ReexecError::NotExecutable { path: path.to_owned(), mode, uid });
    }
    Ok(())
}

/// Asks the kernel itself, where it can be asked (Linux 6.14): a noexec mount, a writer, a security module.
fn kernel_check(path: &Path, handle: &File) -> Result<(), ReexecError> {
    match ptrace::may_execute(handle.as_fd()) {
        Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => Err(ReexecError::Busy { path: path.to_owned() }),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(ReexecError::Open { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Whether the process now executes what was checked.
pub(super) fn runs(pid: i32, expected: &Identity) -> io::Result<bool> {
    let now = proc_task::executable_metadata(pid)?;
    Ok(expected.script || (now.dev(), now.ino()) == (expected.device, expected.inode))
}
