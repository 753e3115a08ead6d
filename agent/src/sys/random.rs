//! Bytes that nobody can guess, from the kernel.

use nix::errno::Errno;

/// Fills with random bytes; 32 bytes are never cut short (getrandom(2): up to 256 are not).
pub fn bytes32() -> Result<[u8; 32], Errno> {
    let mut bytes = [0; 32];
    loop {
        // SAFETY: the pointer and the length are of one live array, which the kernel writes.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        match Errno::result(filled) {
            Ok(count) if usize::try_from(count) == Ok(bytes.len()) => return Ok(bytes),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
