//! Starts a program with execve itself: no shell behind its back, its own process group, the terminal if there is one.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Searched when PATH is unset, as the C library would.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a stream of the new program goes.
pub enum Target {
    Inherit,
    Pipe(OwnedFd),
}

/// Starts `argv` in a group of its own and returns its pid; the child is not waited for by this handle. `from`: the
/// executable, where it is another than the first word says.
///
/// The child has nothing blocked, this process's environment and working directory.
/// Every signal must be blocked here, and none ignored but SIGPIPE, which becomes the default in the child. With `terminal` its group is in the foreground before its first instruction. An error is the error of exec(2).
pub fn start(
    from: Option<&Path>,
    argv: &[OsString],
    out: Target,
    err: Target,
    terminal: Option<RawFd>,
) -> io::Result<i32> {
    let program = argv.first().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    let candidates = candidates(from.map_or(program, Path::as_os_str))?;
    let arguments = argv.iter().map(|arg| c_string(arg)).collect::<io::Result<Vec<_>>>()?;
    let mut pointers: Vec<usize> = arguments.iter().map(|arg| arg.as_ptr() as usize).collect();
    pointers.push(0);

    let mut command = Command::new(program);
    command.process_group(0).stdin(Stdio::inherit()).stdout(stdio(out)).stderr(stdio(err));
    // SAFETY: between fork and exec the closure only makes system calls on memory that was made before the fork
    // (it keeps `arguments` alive, to which `pointers` points), and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let _kept = &arguments;
            if let Some(fd) = terminal {
                take_foreground(fd);
            }
            unblock_all();
            Err(exec_first(&candidates, pointers.as_ptr().cast()))
        });
    }
    Ok(command.spawn()?.id() as i32)
}

fn stdio(target: Target) -> Stdio {
    match target {
        Target::Inherit => Stdio::inherit(),
        Target::Pipe(fd) => Stdio::from(fd),
    }
}

fn c_string(value: &OsStr) -> io::Result<CString> {
    CString::new(value.as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The paths that execvp would try, in its order.
fn candidates(program: &OsStr) -> io::Result<Vec<CString>> {
    search(program).iter().map(|path| c_string(path.as_os_str())).collect()
}

/// Where a program may lie, as execvp looks for it: the name itself if it has a slash, else below each part of PATH.
pub fn search(program: &OsStr) -> Vec<PathBuf> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path)
        .map(|dir| if dir.as_os_str().is_empty() { ".".into() } else { dir })
        .map(|dir| dir.join(program))
        .collect()
}

/// Tries each path; EACCES of one is remembered over ENOENT of the others, any other error ends the search. Runs after fork.
fn exec_first(candidates: &[CString], argv: *const *const libc::c_char) -> io::Error {
    let mut worst = libc::ENOENT;
    for path in candidates {
        // SAFETY: `path` ends with NUL; `argv` is an array of such strings that ends with a null pointer.
        unsafe { libc::execv(path.as_ptr(), argv) };
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => worst = libc::EACCES,
            other => return io::Error::from_raw_os_error(other.unwrap_or(libc::EIO)),
        }
    }
    io::Error::from_raw_os_error(worst)
}

/// Makes the calling process's group the terminal's foreground group. Runs after fork, with every signal blocked: SIGTTOU would
/// stop a background process that does so.
fn take_foreground(fd: RawFd) {
    // SAFETY: takes numbers only; failure (the terminal went away) leaves the group in the background.
    unsafe { libc::tcsetpgrp(fd, libc::getpid()) };
}

/// Runs after fork: exec keeps the mask, and the standard library leaves it as it is.
fn unblock_all() {
    // SAFETY: sigset_t is plain data, for which all zeroes is a value; sigemptyset fills it anyway.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a live local variable.
    unsafe { libc::sigemptyset(&mut none) };
    // SAFETY: changes the mask of this thread, which is the only one after fork.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) };
}
