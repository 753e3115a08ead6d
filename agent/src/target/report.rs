//! What was found and what is permitted, and why not: tried where trying is free, predicted for ptrace.

use std::sync::Arc;

use devsync_protocol::target::{
    AccessClass, AgentIds, CapSet, DirectoryVerdict, Refusal, TargetReport, Verdict,
};

use super::error::TargetError;
use super::find::Target;
use super::identity::Identity;
use super::root::TargetRoot;
use crate::sys::ids::FsIds;
use crate::sys::proc::{self, ProcDir, Status};

/// Describes the target; a root that stays shut is part of the description and no error.
pub fn describe(target: &Target) -> Result<TargetReport, TargetError> {
    let proc = ProcDir::open(target.app)?;
    let opened = Identity::open(target.app).and_then(|identity| TargetRoot::open(Arc::new(identity)));
    match opened {
        Ok(root) => describe_open(target, &root),
        Err(error @ TargetError::NoAccess { .. }) => {
            let mut report = basics(target, &proc)?;
            report.root = refused(&error);
            report.ptrace = report.root.clone();
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

/// As `describe`, for a root that is open already.
pub fn describe_open(target: &Target, root: &TargetRoot) -> Result<TargetReport, TargetError> {
    let identity = root.identity();
    let (proc, access) = (identity.proc(), identity.access());
    let mut report = basics(target, proc)?;
    report.exe = access.inspect(|| proc.exe())?;
    report.cwd = access.inspect(|| proc.cwd())?;
    report.access = access.class();
    report.confinement = Some(root.confinement());
    report.root = Verdict::Permitted;
    report.write = write_verdicts(root, &report.cwd, &report.exe);
    report.ptrace = ptrace(access.class(), &ProcDir::own()?.status()?, &proc.status()?, proc::yama_scope());
    Ok(report)
}

/// What everybody may read of a process.
fn basics(target: &Target, proc: &ProcDir) -> Result<TargetReport, TargetError> {
    let status = proc.status()?;
    let own = FsIds::current();
    let capabilities = ProcDir::own()?.status()?.cap_effective;
    let machine = nix::sys::utsname::uname().map(|u| u.machine().to_string_lossy().into_owned());
    let unknown = Verdict::Refused(Refusal { cause: String::new(), hint: String::new() });
    Ok(TargetReport {
        pid: target.app,
        supervisor: target.supervisor,
        exe: Vec::new(),
        argv: proc.cmdline()?,
        cwd: Vec::new(),
        uid: status.uids[1],
        gid: status.gids[1],
        capabilities: status.cap_permitted,
        no_new_privs: status.no_new_privs,
        seccomp: status.seccomp != 0,
        container: target.container.clone(),
        machine: machine.unwrap_or_else(|_| std::env::consts::ARCH.to_owned()),
        agent: AgentIds { uid: own.uid, gid: own.gid, capabilities },
        access: AccessClass::Refused,
        confinement: None,
        root: unknown.clone(),
        write: Vec::new(),
        ptrace: unknown,
    })
}

fn write_verdicts(root: &TargetRoot, cwd: &[u8], exe: &[u8]) -> Vec<DirectoryVerdict> {
    let end = exe.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let mut directories = vec![cwd, if end == 0 { b"/" } else { &exe[..end] }];
    directories.dedup();
    let verdict = |directory: &[u8]| {
        let asked = root.sync_root(directory).and_then(|d| d.check_writable(b""));
        asked.map_or_else(|error| refused(&error), |_| Verdict::Permitted)
    };
    directories
        .into_iter()
        .map(|directory| DirectoryVerdict { directory: directory.to_vec(), verdict: verdict(directory) })
        .collect()
}

fn refused(error: &TargetError) -> Verdict {
    Verdict::Refused(Refusal { cause: error.to_string(), hint: error.hint().unwrap_or_default() })
}

/// PTRACE_MODE_ATTACH_REALCREDS, as ptrace(2) and Yama's documentation have it. A seccomp filter of the agent
/// cannot be asked about: only trying shows it.
fn ptrace(class: AccessClass, agent: &Status, app: &Status, yama: Option<u8>) -> Verdict {
    let no = |cause: String, hint: &str| Verdict::Refused(Refusal { cause, hint: hint.to_owned() });
    let may_trace = agent.cap_effective.has(CapSet::SYS_PTRACE);
    if app.tracer != 0 {
        return no(
            format!("process {} traces it already", app.tracer),
            "end the debugger or strace that is attached to it",
        );
    }
    match yama {
        Some(3) => {
            return no(
                "kernel.yama.ptrace_scope is 3: nobody may trace on this node".to_owned(),
                "run the app under devsync-run: restart mode supervise needs no ptrace",
            );
        }
        Some(scope @ 1..) if !may_trace => {
            return no(
                format!("kernel.yama.ptrace_scope is {scope} on this node and the agent lacks SYS_PTRACE"),
                "run the app under devsync-run (restart mode supervise), or set the sysctl to 0, or give the agent SYS_PTRACE",
            );
        }
        _ => {}
    }
    // A helper that takes the app's real ids keeps at most what the agent is permitted.
    let missing = agent.cap_permitted.missing(app.cap_permitted);
    if class == AccessClass::MatchedIds && !missing.is_empty() && !may_trace {
        return no(
            format!("the app has capabilities that the agent lacks: {missing}"),
            "drop them from the app's container, or give the agent SYS_PTRACE",
        );
    }
    Verdict::Permitted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_caps(permitted: u64) -> Status {
        Status { cap_permitted: CapSet(permitted), cap_effective: CapSet(permitted), ..Status::default() }
    }

    #[test]
    fn yama_refuses_without_sys_ptrace() {
        let (plain, strong) = (with_caps(0), with_caps(1 << CapSet::SYS_PTRACE));
        for scope in [None, Some(0)] {
            assert!(ptrace(AccessClass::SameIds, &plain, &with_caps(0), scope).is_permitted());
        }
        for scope in [1, 2] {
            let verdict = ptrace(AccessClass::SameIds, &plain, &with_caps(0), Some(scope));
            let Verdict::Refused(refusal) = verdict else { panic!("permitted under scope {scope}") };
            assert!(refusal.cause.contains(&format!("ptrace_scope is {scope}")), "{}", refusal.cause);
            assert!(ptrace(AccessClass::Ptrace, &strong, &with_caps(0), Some(scope)).is_permitted());
        }
        assert!(!ptrace(AccessClass::Ptrace, &strong, &with_caps(0), Some(3)).is_permitted());
    }

    #[test]
    fn a_traced_app_is_refused_with_the_tracer_named() {
        let app = Status { tracer: 77, ..Status::default() };
        let Verdict::Refused(refusal) = ptrace(AccessClass::SameIds, &with_caps(0), &app, None) else {
            panic!("permitted");
        };
        assert!(refusal.cause.contains("77"));
    }
}
