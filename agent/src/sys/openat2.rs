//! openat2(2): one directory, opened by a path that cannot leave the directory it starts from.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The kernel gives up with EAGAIN when a rename raced with a `..` of a link; more tries than this are an
/// attack or a very busy tree.
const TRIES: u32 = 128;

/// What bounds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The start is `/` for absolute links and `..`: links of the app mean what they mean to the app.
    InRoot,
    /// A link that leads out of the start, an absolute one too, is an error (EXDEV).
    Beneath,
}

impl Scope {
    fn flags(self) -> ResolveFlag {
        // The man page asks for NO_MAGICLINKS by name: IN_ROOT and BENEATH may stop implying it.
        ResolveFlag::RESOLVE_NO_MAGICLINKS
            | match self {
                Self::InRoot => ResolveFlag::RESOLVE_IN_ROOT,
                Self::Beneath => ResolveFlag::RESOLVE_BENEATH,
            }
    }
}

/// Opens `path` below `dir` with `flags`; EAGAIN comes back only after a bounded number of tries.
pub fn open(dir: impl AsFd, path: &[u8], flags: OFlag, scope: Scope) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(scope.flags());
    for _ in 1..TRIES {
        match openat2(dir.as_fd(), path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
    openat2(dir.as_fd(), path, how)
}

/// Whether the kernel has the call and no seccomp filter takes it away; an old filter says EPERM for ENOSYS.
pub fn is_available(dir: impl AsFd) -> bool {
    let found = open(dir, b".", OFlag::O_PATH | OFlag::O_DIRECTORY, Scope::InRoot);
    !matches!(found, Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::E2BIG))
}
