//! Will writes work in a directory? Asked before any byte, answered with the ways out, without leaving anything.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::access::Hand;
use super::error::TargetError;
use super::metadata::Metadata;
use super::parent::Parent;
use super::root::SyncRoot;
use super::shown::Shown;
use crate::sys::access;

impl SyncRoot {
    /// Whether entries can be made and replaced in a directory (the empty path is the sync root), and with
    /// whose ids. Where the directory does not exist yet, its nearest existing parent is asked.
    pub fn check_writable(&self, directory: &[u8]) -> Result<Hand, TargetError> {
        let mut directory = directory;
        loop {
            match self.directory(directory) {
                Err(error) if error.is_not_found() && !directory.is_empty() => {
                    let up = directory.iter().rposition(|b| *b == b'/').unwrap_or(0);
                    directory = &directory[..up];
                }
                found => return found?.check_writable(),
            }
        }
    }
}

impl Parent {
    /// See `SyncRoot::check_writable`.
    pub fn check_writable(&self) -> Result<Hand, TargetError> {
        let asked = self.root().access().run(|hand| access::may_write_in(self).map(|()| hand));
        match asked {
            Ok(hand) => Ok(hand),
            Err(Errno::ENOSYS | Errno::EINVAL) => self.try_to_write(),
            // Seccomp profiles from before the call say EPERM, and it is not an answer that DAC gives.
            Err(Errno::EPERM) => self.try_to_write(),
            Err(errno) => Err(self.not_writable(errno)),
        }
    }

    /// Makes a file that has no name and lets it go, so that nothing is left whatever happens meanwhile. False where
    /// the file system has no such files.
    pub fn try_unnamed(&self) -> Result<bool, TargetError> {
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let made = self.root().access().run(|_| openat(self, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR));
        match made {
            Ok(_) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.not_writable(errno)),
        }
    }

    /// The only other way to know; what it makes is gone when it returns.
    fn try_to_write(&self) -> Result<Hand, TargetError> {
        let temp = self.create_temp().map_err(|error| match error.errno() {
            Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => self.not_writable(errno),
            _ => error,
        })?;
        drop(temp);
        Ok(Hand::App)
    }

    fn not_writable(&self, errno: Errno) -> TargetError {
        let directory = Shown::from(self.name());
        if errno == Errno::EROFS {
            let cause = "its file system is read-only".to_owned();
            let hint =
                "give the directory a writable volume (a workspace volume: the annotation names the sync \
                        root), or set readOnlyRootFilesystem: false in the app's container"
                    .to_owned();
            return TargetError::NotWritable { directory, cause, hint };
        }
        match self.own_metadata() {
            Ok(found) if matches!(errno, Errno::EACCES | Errno::EPERM) => {
                let (cause, hint) = self.denied(&found);
                TargetError::NotWritable { directory, cause, hint }
            }
            _ => TargetError::Call { operation: "write in", path: directory, errno },
        }
    }

    fn denied(&self, found: &Metadata) -> (String, String) {
        let access = self.root().access();
        let (own, app) = (access.own(), access.app());
        let who = if own == app {
            format!("the agent has uid {} and gid {}, as the app", own.uid, own.gid)
        } else {
            format!(
                "neither the app's ids ({}:{}) nor the agent's ({}:{}) may",
                app.uid, app.gid, own.uid, own.gid
            )
        };
        let cause = format!("it belongs to {}:{} with mode {:04o}; {who}", found.uid, found.gid, found.mode);
        let hint = format!(
            "a workspace volume in its place, or the agent as root with the runtime's default capabilities \
             (DAC_OVERRIDE), or `chown -R {}:{}` in the image; a native executable can also run from memory (memfd)",
            app.uid, app.gid
        );
        (cause, hint)
    }
}
