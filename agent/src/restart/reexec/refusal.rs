//! Why ptrace is not permitted: the kernel says EPERM for all of it, so the rules are gone through in its order
//! (ptrace(2), "Ptrace access mode checking"). Reads only.

use std::io;

use devsync_protocol::restart::{Refusal, RefusalKind};
use devsync_protocol::target::CapSet;

use super::error::ReexecError;
use crate::sys::proc::{self, ProcDir, Status};
use crate::sys::proc_task;
use crate::sys::ptrace;

const CAP_SYS_PTRACE: u32 = 19;
const MATCH_HINT: &str =
    "run the agent with the app's runAsUser and runAsGroup, or as root with SETUID and SETGID";
const OTHERWISE: &str = "start the app under devsync-run, and use restart mode supervise";

/// The refusal behind an error of the checks.
pub(super) fn of(pid: i32, error: ReexecError) -> Refusal {
    match error {
        ReexecError::Refused(refusal) => refusal,
        other => Refusal {
            kind: RefusalKind::Gone,
            cause: other.to_string(),
            hint: format!("look whether process {pid} still runs"),
        },
    }
}

/// The refusal behind what a request for a process was answered with.
pub(super) fn explain(pid: i32, error: &io::Error) -> Refusal {
    let refusal = |kind, cause: String, hint: &str| Refusal { kind, cause, hint: hint.into() };
    let (Ok(app), Ok(own)) = (proc_task::status(pid), proc_task::own_status()) else {
        return refusal(RefusalKind::Gone, format!("process {pid} has ended"), "wait for its container");
    };
    if ptrace::is_filtered() {
        let cause = format!(
            "a seccomp filter of the agent's container forbids ptrace (own Seccomp: {})",
            own.seccomp
        );
        return refusal(
            RefusalKind::Seccomp,
            cause,
            "use seccompProfile RuntimeDefault on Linux 4.8 or newer, or restart mode supervise",
        );
    }
    if app.tracer != 0 {
        let cause = format!("process {pid} is traced by process {} already", app.tracer);
        return refusal(RefusalKind::Traced, cause, "end the debugger");
    }
    if app.state == 'Z' {
        return refusal(RefusalKind::Gone, format!("process {pid} has ended"), "wait for its container");
    }
    by_rights(pid, &app, &own).unwrap_or_else(|| {
        let cause =
            format!("ptrace of process {pid} is refused by what looks like a security module: {error}");
        refusal(RefusalKind::Unexplained, cause, "look at the AppArmor or SELinux profile of both containers")
    })
}

/// The kernel's own rules, for a process that is not filtered and an app that is not traced.
fn by_rights(pid: i32, app: &Status, own: &Status) -> Option<Refusal> {
    let refusal = |kind, cause: String, hint: &str| Some(Refusal { kind, cause, hint: hint.into() });
    let scope = proc::yama_scope().unwrap_or(0);
    if scope >= 3 {
        let cause = "Yama forbids ptrace on this node (kernel.yama.ptrace_scope = 3)";
        return refusal(RefusalKind::Yama, cause.into(), OTHERWISE);
    }
    if own.cap_effective.0 >> CAP_SYS_PTRACE & 1 == 1 {
        return None;
    }
    let (uid, gid) = (own.uids[0], own.gids[0]);
    if app.uids[..3] != [uid; 3] || app.gids[..3] != [gid; 3] {
        let (theirs, groups) = (&app.uids[..3], &app.gids[..3]);
        let cause = format!(
            "process {pid} has uids {theirs:?} and gids {groups:?}, the tracer {uid}:{gid} without SYS_PTRACE"
        );
        return refusal(RefusalKind::Ids, cause, MATCH_HINT);
    }
    let more = app.cap_permitted.0 & !own.cap_permitted.0;
    if more != 0 {
        let cause = format!("process {pid} has capabilities that the agent lacks: {}", CapSet(more));
        return refusal(
            RefusalKind::Capabilities,
            cause,
            "give the agent the same capabilities, or drop them from the app (allowPrivilegeEscalation: false)",
        );
    }
    if uid != 0 && is_shut(pid) {
        let cause =
            format!("process {pid} is not dumpable: it changed its ids without exec, or may not be read");
        return refusal(
            RefusalKind::NotDumpable,
            cause,
            "add SYS_PTRACE to the agent, which must run as root",
        );
    }
    if scope >= 1 {
        let cause = format!(
            "Yama allows ptrace only of descendants on this node (kernel.yama.ptrace_scope = {scope})"
        );
        return refusal(RefusalKind::Yama, cause, OTHERWISE);
    }
    None
}

/// Whether the process is not dumpable, asked for one that is not root's.
fn is_shut(pid: i32) -> bool {
    ProcDir::open(pid.cast_unsigned()).and_then(|dir| dir.belongs_to_root()).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: u32, permitted: u64) -> Status {
        Status { uids: [uid; 4], gids: [uid; 4], cap_permitted: CapSet(permitted), ..Status::default() }
    }

    #[test]
    fn other_ids_and_more_capabilities_are_told_apart() {
        let kind = |app: &Status, own: &Status| by_rights(1, app, own).map(|refusal| refusal.kind);
        assert_eq!(kind(&status(1000, 0), &status(0, 0)), Some(RefusalKind::Ids));
        assert_eq!(kind(&status(0, 0b100_0001), &status(0, 1)), Some(RefusalKind::Capabilities));
        let all = Status { cap_effective: CapSet(1 << CAP_SYS_PTRACE), ..status(0, 0) };
        assert_eq!(kind(&status(1000, 1), &all), None);
    }

    #[test]
    fn capabilities_are_named_as_in_a_manifest() {
        assert_eq!(CapSet(1 | 1 << 19).to_string(), "CHOWN, SYS_PTRACE");
    }
}
