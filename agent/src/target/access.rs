//! With whose file system ids the app's root is opened and its files are touched. Callers never think about ids.

use nix::errno::Errno;

use devsync_protocol::target::{AccessClass, CapSet};

use super::error::TargetError;
use crate::sys::ids::{FsIdGuard, FsIds};
use crate::sys::proc::{ProcDir, ProcError, Status};

/// Whose ids a call succeeded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// The app's.
    App,
    /// The agent's own, which differ from the app's.
    Agent,
}

/// The ids that open one app's root and touch its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    class: AccessClass,
    own: FsIds,
    /// The ids that `/proc/PID/root` is opened with.
    opener: FsIds,
    /// The app's, where the agent can take them; else its own.
    files: FsIds,
    app: FsIds,
}

impl Access {
    /// Tries what opens the app's root: the ids that the agent has, then the app's (reliable for every
    /// combination of capabilities, dumpable flags and security modules, as a prediction is not).
    pub fn find(proc: &ProcDir) -> Result<Self, TargetError> {
        let own = FsIds::current();
        let status = proc.status()?;
        let app = FsIds { uid: status.uids[1], gid: status.gids[1] };
        let can_match = app == own || FsIdGuard::enter(app).is_ok();
        let files = if can_match { app } else { own };
        match proc.open_root() {
            Ok(_) => {
                let class = if app == own { AccessClass::SameIds } else { AccessClass::Ptrace };
                return Ok(Self { class, own, opener: own, files, app });
            }
            Err(error) if !error.is_denied() => return Err(error.into()),
            Err(_) => {}
        }
        if can_match && app != own {
            let _ids = FsIdGuard::enter(app)?;
            if proc.open_root().is_ok() {
                return Ok(Self { class: AccessClass::MatchedIds, own, opener: app, files, app });
            }
        }
        let agent = ProcDir::own()?.status()?;
        let (cause, hint) = why_refused(own, &agent, &status, proc.belongs_to_root()?);
        Err(TargetError::NoAccess { pid: proc.pid(), cause, hint })
    }

    pub fn class(&self) -> AccessClass {
        self.class
    }

    /// The app's effective ids.
    pub fn app(&self) -> FsIds {
        self.app
    }

    /// The agent's ids when the app was found.
    pub fn own(&self) -> FsIds {
        self.own
    }

    /// Gives the calling thread the ids that files are touched with, until the guard goes: not needed for
    /// anything, but many calls in its life save the switching.
    pub fn enter(&self) -> Result<FsIdGuard, TargetError> {
        Ok(FsIdGuard::enter(self.files)?)
    }

    /// Reads of the app's `/proc` that need the right to open its root: namespaces, exe, cwd, environment.
    pub fn inspect<T>(&self, read: impl FnOnce() -> Result<T, ProcError>) -> Result<T, TargetError> {
        let _ids = FsIdGuard::enter(self.opener)?;
        Ok(read()?)
    }

    /// Runs a file operation with the app's ids, and after EACCES or EPERM with the agent's own.
    ///
    /// The operation is told whose hand it is, and may so run twice.
    pub(super) fn run<T>(&self, operation: impl Fn(Hand) -> Result<T, Errno>) -> Result<T, Errno> {
        let first = {
            let _ids = FsIdGuard::enter(self.files).map_err(|_| Errno::EPERM)?;
            operation(if self.files == self.app { Hand::App } else { Hand::Agent })
        };
        match first {
            Err(Errno::EACCES | Errno::EPERM) if self.files != self.own => {
                let _ids = FsIdGuard::enter(self.own).map_err(|_| Errno::EPERM)?;
                operation(Hand::Agent)
            }
            done => done,
        }
    }
}

/// One read of a process's `/proc` that needs the right to open its root, for processes that are only looked at.
pub(super) fn inspect_process<T>(
    proc: &ProcDir,
    read: impl Fn() -> Result<T, ProcError>,
) -> Result<T, ProcError> {
    match read() {
        Err(error) if error.is_denied() => {
            let status = proc.status()?;
            let app = FsIds { uid: status.uids[1], gid: status.gids[1] };
            let Ok(_ids) = FsIdGuard::enter(app) else { return Err(error) };
            read()
        }
        done => done,
    }
}

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
const FILE_SYSTEM_CAPS: u64 = 0x1_0800_021f;

/// The rule of ptrace(2), "Ptrace access mode checking", turned into a sentence and a remedy.
fn why_refused(own: FsIds, agent: &Status, app: &Status, not_dumpable: bool) -> (String, String) {
    let Some((uid, gid)) = app.uniform_ids() else {
        let cause = format!(
            "its real, effective and saved ids differ (uids {:?}, gids {:?})",
            &app.uids[..3],
            &app.gids[..3]
        );
        return (cause, "give the agent's container the capability SYS_PTRACE".to_owned());
    };
    let caps = agent.cap_effective;
    if (uid, gid) != (own.uid, own.gid) {
        let (cause, hint) = why_not_matched(own, caps, uid, gid);
        if let Some(cause) = cause {
            return (cause, hint);
        }
    }
    // The kernel takes these away while a thread of root has another fs uid (capabilities(7)).
    let usable = if own.uid == 0 && uid != 0 { CapSet(caps.0 & !FILE_SYSTEM_CAPS) } else { caps };
    let missing = usable.missing(app.cap_permitted);
    if !missing.is_empty() {
        return (
            format!(
                "the app has capabilities that the agent lacks{}: {missing}",
                if usable == caps { "" } else { " with the app's ids" }
            ),
            format!(
                "add them to the agent's container ({}), or drop them from the app's (capabilities: {{drop: [ALL]}})",
                missing.names().join(", ")
            ),
        );
    }
    if uid != 0 && not_dumpable {
        return (
            "the app is not dumpable: it changed its ids without execve, its executable is unreadable, or it has \
             file capabilities"
                .to_owned(),
            "set allowPrivilegeEscalation: false in the app's container, attach to its parent process, or give \
             the agent SYS_PTRACE"
                .to_owned(),
        );
    }
    (
        "the kernel refuses it although ids and capabilities fit: a security module (AppArmor, SELinux), another \
         user namespace, or a process that is not dumpable"
            .to_owned(),
        "run both containers with the runtime's default security profile, or give the agent SYS_PTRACE".to_owned(),
    )
}

fn why_not_matched(own: FsIds, caps: CapSet, uid: u32, gid: u32) -> (Option<String>, String) {
    let same = format!("run the agent with runAsUser: {uid} and runAsGroup: {gid}");
    if own.uid == uid {
        let cause = format!("the agent's gid is {} and the app's is {gid}; both ids must be equal", own.gid);
        return (Some(cause), same);
    }
    if caps.has(CapSet::SETUID) && caps.has(CapSet::SETGID) {
        return (None, String::new());
    }
    let cause = if own.uid == 0 {
        format!(
            "the agent is root without the capabilities SETUID and SETGID, and the app has uid {uid} and gid {gid}"
        )
    } else {
        format!("the agent has uid {} and gid {}, the app {uid} and {gid}", own.uid, own.gid)
    };
    (Some(cause), format!("{same}, or as root with the runtime's default capabilities"))
}
