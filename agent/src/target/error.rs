//! What can go wrong between the agent and the app's files: the operation, the path, the cause, a hint.

use nix::errno::Errno;

use super::metadata::Kind;
use super::shown::Shown;
use crate::sys::ids::IdsError;
use crate::sys::proc::ProcError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the path {path} is refused: {reason}")]
    BadPath { path: Shown, reason: &'static str },
    #[error("cannot {operation} {path}: {}", errno.desc())]
    Call { operation: &'static str, path: Shown, errno: Errno },
    #[error("cannot {operation} {path}: a link on the way leads out of the synced directory")]
    Escapes { operation: &'static str, path: Shown },
    #[error("cannot {operation} {path}: a directory on the way is a symlink")]
    SymlinkOnTheWay { operation: &'static str, path: Shown },
    #[error("cannot {operation} {path}: its directories were renamed again and again meanwhile")]
    Racing { operation: &'static str, path: Shown },
    #[error("cannot {operation} {path}: it is {}", kind.name())]
    WrongKind { operation: &'static str, path: Shown, kind: Kind },
    #[error("cannot {operation} {path}: it lies on {filesystem}")]
    Forbidden { operation: &'static str, path: Shown, filesystem: &'static str },
    #[error("cannot {operation} {path} with root's rights: the file has other names too (hard links)")]
    HardLinked { operation: &'static str, path: Shown },
    #[error("{path} holds more than {limit} entries")]
    TooMany { path: Shown, limit: usize },
    #[error("cannot write in {directory}: {cause}")]
    NotWritable { directory: Shown, cause: String, hint: String },
    #[error("the app (process {pid}) has ended")]
    Vanished { pid: u32 },
    #[error("cannot open the root of process {pid}: {cause}")]
    NoAccess { pid: u32, cause: String, hint: String },
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error(transparent)]
    Ids(#[from] IdsError),
}

impl TargetError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotWritable { hint, .. } | Self::NoAccess { hint, .. } => hint.clone(),
            Self::SymlinkOnTheWay { .. } => {
                "openat2 is missing here (an old kernel or seccomp profile), so links are not followed: \
                 sync into the directory that the link names"
                    .to_owned()
            }
            Self::Escapes { .. } => {
                "sync into the directory that the link names, with --sync FROM:TO".to_owned()
            }
            Self::HardLinked { .. } => "replace the file instead of changing it in place".to_owned(),
            Self::Vanished { .. } | Self::Proc(ProcError::Vanished { .. }) => {
                "attach again when the app runs again".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// The system call's error, where one is the cause.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { errno, .. } | Self::Proc(ProcError::Read { errno, .. }) => Some(*errno),
            Self::Vanished { .. } | Self::Proc(ProcError::Vanished { .. }) => Some(Errno::ESRCH),
            Self::Escapes { .. } => Some(Errno::EXDEV),
            Self::Racing { .. } => Some(Errno::EAGAIN),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }
}
