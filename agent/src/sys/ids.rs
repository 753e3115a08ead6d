//! The thread's file system ids: set for a while, put back, read back.
//! Process-wide ids are no business of this file.

use std::marker::PhantomData;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// The uid and gid that file accesses of one thread are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsIds {
    pub uid: u32,
    pub gid: u32,
}

impl FsIds {
    /// Those of the calling thread.
    pub fn current() -> Self {
        // An id that cannot exist changes nothing; the call returns the present one.
        Self {
            uid: setfsuid(Uid::from_raw(u32::MAX)).as_raw(),
            gid: setfsgid(Gid::from_raw(u32::MAX)).as_raw(),
        }
    }

    /// Sets them; the calls report no errors, so what they did is read back.
    fn set(self) -> bool {
        setfsgid(Gid::from_raw(self.gid));
        setfsuid(Uid::from_raw(self.uid));
        // A change of ids resets the dumpable flag to the sysctl `fs.suid_dumpable`, which may be 1.
        super::dumpable::reassert();
        Self::current() == self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot take uid {} and gid {} for file access: SETUID or SETGID is missing", .0.uid, .0.gid)]
pub struct IdsError(pub FsIds);

/// The calling thread has the given ids until this is dropped; then it has those from before again.
///
/// Changing ids clears the thread's parent-death signal (prctl(2), `PR_SET_PDEATHSIG`).
#[derive(Debug)]
pub struct FsIdGuard {
    before: FsIds,
    now: FsIds,
    /// Ids belong to a thread: the guard must not be sent to another.
    thread: PhantomData<*const ()>,
}

impl FsIdGuard {
    /// Costs two system calls when the thread has these ids already.
    pub fn enter(ids: FsIds) -> Result<Self, IdsError> {
        let before = FsIds::current();
        let guard = Self { before, now: ids, thread: PhantomData };
        if before == ids || ids.set() { Ok(guard) } else { Err(IdsError(ids)) }
    }
}

impl Drop for FsIdGuard {
    fn drop(&mut self) {
        if self.before != self.now && !self.before.set() {
            // A thread with unknown ids must not touch another file.
            std::process::abort();
        }
    }
}
