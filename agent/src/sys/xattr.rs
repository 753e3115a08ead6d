//! Extended attributes of an open file, for files that replace others.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// The kernel's own limits (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX: usize = 65536;

/// The names, each ended by a NUL, of a file that is open for reading or writing.
pub fn list(file: impl AsFd) -> Result<Vec<u8>, Errno> {
    let fd = file.as_fd().as_raw_fd();
    let mut names = vec![0u8; MAX];
    // SAFETY: `names` is writable for the length that is passed.
    let size = Errno::result(unsafe { libc::flistxattr(fd, names.as_mut_ptr().cast(), names.len()) })?;
    names.truncate(usize::try_from(size).unwrap_or(0));
    Ok(names)
}

pub fn get(file: impl AsFd, name: &CStr) -> Result<Vec<u8>, Errno> {
    let fd = file.as_fd().as_raw_fd();
    let mut value = vec![0u8; MAX];
    // SAFETY: `name` is a C string, and `value` is writable for the length that is passed.
    let size =
        Errno::result(unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len()) })?;
    value.truncate(usize::try_from(size).unwrap_or(0));
    Ok(value)
}

pub fn set(file: impl AsFd, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: `name` is a C string, and `value` is readable for the length that is passed.
    let set = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(set).map(drop)
}
