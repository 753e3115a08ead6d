//! The app: what the agent's rights predict, and what comes of trying.

use std::sync::Arc;

use devsync_protocol::finding::Finding;
use devsync_protocol::path::display;
use devsync_protocol::target::{AccessClass, CapSet, Verdict};

use super::machine::{capabilities, seccomp};
use crate::restart::helper;
use crate::restart::supervise;
use crate::sys::ids::FsIds;
use crate::sys::proc::{ProcDir, ProcError, Status};
use crate::target::error::TargetError;
use crate::target::find::Target;
use crate::target::identity::Identity;
use crate::target::report;
use crate::target::root::TargetRoot;

const SUPERVISE: &str =
    "the annotation devsync.dev/restart: supervise starts the app under devsync-run, which needs no tracing";

pub(super) fn look(target: &Target) -> Vec<Finding> {
    let statuses = statuses(target.app);
    let (agent, app, label) = match &statuses {
        Ok(found) => found,
        Err(error) => return vec![Finding::problem("app", error.to_string(), "is it still running?")],
    };
    let mut found = vec![who(target, app, label.as_deref())];
    let expected = predicted(FsIds::current(), agent, app);
    let opened = Identity::open(target.app).map(Arc::new);
    let (identity, root) =
        match opened.and_then(|app| TargetRoot::open(Arc::clone(&app)).map(|root| (app, root))) {
            Ok((identity, root)) => {
                found.push(entered(expected, identity.access().class()));
                found.extend(writes(target, &root));
                (identity, root)
            }
            Err(error) => {
                found.push(shut(expected, &error));
                return found;
            }
        };
    found.push(dumpable(&identity, app));
    found.push(restart(&identity));
    found.push(super::editors::look(&identity, &root));
    found
}

type Statuses = (Status, Status, Option<Vec<u8>>);

fn statuses(pid: u32) -> Result<Statuses, ProcError> {
    let app = ProcDir::open(pid)?;
    Ok((ProcDir::own()?.status()?, app.status()?, app.security_label()))
}

fn who(target: &Target, app: &Status, label: Option<&[u8]>) -> Finding {
    let argv = ProcDir::open(target.app).and_then(|proc| proc.first_words()).unwrap_or_default();
    let label = label.map_or_else(|| "none".to_owned(), display);
    let under = target.supervisor.map(|pid| format!(" under devsync-run (pid {pid})")).unwrap_or_default();
    let privileges = if app.no_new_privs { ", no new privileges" } else { "" };
    let text = format!(
        "pid {}{under}: {} as {}:{}, capabilities {}; {}{privileges}, security label {label}",
        target.app,
        display(&argv.join(&b' ')),
        app.uids[1],
        app.gids[1],
        capabilities(app.cap_permitted),
        seccomp(app.seccomp),
    );
    Finding::ok("app", text)
}

/// The rule of ptrace(2) for what opens `/proc/PID/root`.
fn predicted(own: FsIds, agent: &Status, app: &Status) -> AccessClass {
    let caps = agent.cap_effective;
    if caps.has(CapSet::SYS_PTRACE) {
        return if app.uniform_ids() == Some((own.uid, own.gid)) {
            AccessClass::SameIds
        } else {
            AccessClass::Ptrace
        };
    }
    let Some(ids) = app.uniform_ids() else { return AccessClass::Refused };
    let takes_ids = own.uid == 0 && caps.has(CapSet::SETUID) && caps.has(CapSet::SETGID);
    match agent.cap_permitted.missing(app.cap_permitted).is_empty() {
        false => AccessClass::Refused,
        true if ids == (own.uid, own.gid) => AccessClass::SameIds,
        true if takes_ids => AccessClass::MatchedIds,
        true => AccessClass::Refused,
    }
}

fn words(class: AccessClass) -> &'static str {
    match class {
        AccessClass::SameIds => "by having the app's ids",
        AccessClass::MatchedIds => "by taking the app's ids, as root",
        AccessClass::Ptrace => "by CAP_SYS_PTRACE",
        AccessClass::Refused => "not at all",
    }
}

fn entered(expected: AccessClass, class: AccessClass) -> Finding {
    let text = format!("the app's root opens {}", words(class));
    match expected == class {
        true => Finding::ok("root", format!("{text}: as predicted, and tried")),
        false => Finding::ok("root", format!("{text}: tried; predicted was {}", words(expected))),
    }
}

fn shut(expected: AccessClass, error: &TargetError) -> Finding {
    let text = match expected {
        AccessClass::Refused => format!("{error}: as predicted, and tried"),
        expected => format!("{error}: tried; predicted was that it opens {}", words(expected)),
    };
    Finding::problem("root", text, error.hint().unwrap_or_default())
}

/// The app's working directory and that of its executable.
fn writes(target: &Target, root: &TargetRoot) -> Vec<Finding> {
    let report = match report::describe_open(target, root) {
        Ok(report) => report,
        Err(error) => {
            return vec![Finding::problem("files", error.to_string(), error.hint().unwrap_or_default())];
        }
    };
    let mut found = Vec::new();
    for place in &report.write {
        let name = display(&place.directory);
        found.push(match &place.verdict {
            Verdict::Refused(no) => {
                Finding::warning("files", format!("{}: predicted", no.cause), no.hint.clone())
            }
            Verdict::Permitted => match root
                .sync_root(&place.directory)
                .and_then(|d| d.directory(b"")?.try_unnamed())
            {
                Ok(true) => Finding::ok("files", format!("{name} can be written: as predicted, and tried")),
                Ok(false) => {
                    let why = "its file system has no files without a name to try it with";
                    Finding::ok("files", format!("{name} can be written: predicted ({why})"))
                }
                Err(error) => {
                    let text = format!("{error}: tried; predicted was that it can be written");
                    Finding::warning("files", text, error.hint().unwrap_or_default())
                }
            },
        });
    }
    if !found.is_empty() && found.iter().all(|finding| finding.fix.is_some()) {
        // Nothing is left to sync into, unless another place is named.
        let none = "neither the app's working directory nor that of its executable can be written";
        found.push(Finding::problem(
            "files",
            none,
            "a workspace volume: the annotation devsync.dev/workspace: DIR; or --sync FROM:TO into a writable place",
        ));
    }
    found
}

fn dumpable(app: &Identity, status: &Status) -> Finding {
    match app.proc().belongs_to_root() {
        Ok(true) if status.uids[1] != 0 => Finding::warning(
            "dumpable",
            "the app is not dumpable: only CAP_SYS_PTRACE looks into it",
            "set allowPrivilegeEscalation: false in the app's container, or attach to its parent process",
        ),
        _ => Finding::ok("dumpable", "the app may be looked into by its own user"),
    }
}

/// Which way `--restart auto` takes. Tracing is tried by the helper that would do it, which stops nothing.
fn restart(app: &Identity) -> Finding {
    match supervise::find(app.pid() as i32) {
        Ok(Some(run)) => {
            return Finding::ok("restart", format!("supervise: devsync-run (pid {}) answers", run.pid()));
        }
        Ok(None) => {}
        Err(error) => {
            let text = format!("devsync-run does not answer: {error}");
            return Finding::problem("restart", text, "is it of the agent's release? a new pod has both");
        }
    }
    match helper::permitted(app.pid() as i32, app.start_time()) {
        Ok(()) => Finding::ok("restart", "reexec: in place, by tracing; tried"),
        Err(no) => Finding::warning(
            "restart",
            format!("none: {}; an app that reloads by itself needs none", no.cause),
            format!("{}; {SUPERVISE}", no.hint),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, caps: u64) -> Status {
        let caps = CapSet(caps);
        Status {
            uids: [uid; 4],
            gids: [uid; 4],
            cap_permitted: caps,
            cap_effective: caps,
            ..Status::default()
        }
    }

    #[test]
    fn what_opens_the_root_is_predicted_from_ids_and_capabilities() {
        let ids = |uid| FsIds { uid, gid: uid };
        let takes = 1 << CapSet::SETUID | 1 << CapSet::SETGID;
        let traces = 1 << CapSet::SYS_PTRACE;
        let of = |uid, own: u64, app, its: u64| predicted(ids(uid), &process(uid, own), &process(app, its));
        assert_eq!(of(7, 0, 7, 0), AccessClass::SameIds);
        assert_eq!(of(7, 0, 8, 0), AccessClass::Refused);
        assert_eq!(of(0, takes, 8, 0), AccessClass::MatchedIds);
        assert_eq!(of(0, 0, 8, 0), AccessClass::Refused);
        assert_eq!(of(0, takes, 8, 1 << 21), AccessClass::Refused);
        assert_eq!(of(0, traces, 8, 1 << 21), AccessClass::Ptrace);
        let mixed = Status { uids: [0, 8, 8, 8], ..process(8, 0) };
        assert_eq!(predicted(ids(0), &process(0, takes), &mixed), AccessClass::Refused);
    }
}
