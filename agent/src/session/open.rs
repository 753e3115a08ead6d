//! The beginning of a session: the app is found, its root opened, and what is permitted is found out.

use std::sync::Arc;

use devsync_protocol::message::{AutoRestart, Refusal, Reply};
use devsync_protocol::restart::RestartMode;
use devsync_protocol::target::{TargetReport, Verdict};

use super::SessionConfig;
use crate::restart::helper;
use crate::restart::reexec::Recorded;
use crate::restart::supervise::{self, Supervisor};
use crate::supervisor::wire::{Cause, Held, State};
use crate::target::error::TargetError;
use crate::target::find::{self, Target};
use crate::target::identity::Identity;
use crate::target::report;
use crate::target::root::TargetRoot;

/// A target that was found and may be entered.
pub(super) struct Opened {
    pub(super) root: TargetRoot,
    pub(super) report: TargetReport,
    pub(super) auto: AutoRestart,
    /// The app's process; the root may be opened through its supervisor, which outlives it.
    pub(super) app: Arc<Identity>,
    pub(super) supervisor: Option<Supervisor>,
    /// How the app was started, where that could be read.
    pub(super) recorded: Option<Recorded>,
    /// Why no app runs under the supervisor.
    pub(super) held: Option<Held>,
}

impl Opened {
    pub(super) fn welcome(&self) -> Reply {
        Reply::Welcome {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            target: Box::new(self.report.clone()),
            auto: self.auto.clone(),
        }
    }

    /// What is to be known before anything is asked for.
    pub(super) fn held(&self) -> Option<Reply> {
        let held = self.held.as_ref()?;
        let cause = held.cause.to_string();
        Some(Reply::Held { cause, output: held.output.clone(), waits: held.cause == Cause::FirstSync })
    }
}

pub(super) fn open(config: &SessionConfig) -> Result<Opened, Refusal> {
    let target = find::find(&config.target).map_err(|error| Refusal {
        what: error.to_string(),
        // It says all: which process, and what is the matter with it.
        cause: String::new(),
        hint: error.hint().map(str::to_owned),
        fatal: true,
    })?;
    let opened = enter(&target);
    opened.map_err(|error| refusal(format!("process {}", target.app), &error))
}

fn enter(target: &Target) -> Result<Opened, TargetError> {
    let app = Arc::new(Identity::open(target.app)?);
    let holder = match target.supervisor {
        Some(pid) if pid != target.app => Arc::new(Identity::open(pid)?),
        _ => Arc::clone(&app),
    };
    let root = TargetRoot::open(holder)?;
    let mut report = report::describe(target)?;
    let supervisor = supervise::find(target.app as i32).unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "devsync-run was not asked");
        None
    });
    let permitted = helper::permitted(target.app as i32, app.start_time());
    report.ptrace = match &permitted {
        Ok(()) => Verdict::Permitted,
        Err(no) => Verdict::Refused(devsync_protocol::target::Refusal {
            cause: no.cause.clone(),
            hint: no.hint.clone(),
        }),
    };
    let held = supervisor.as_ref().and_then(held);
    if app.pid() == holder_pid(target)
        && let Some(program) = supervise::program(&app, &root)
    {
        // What is to be replaced is the app's program, not the one that waits for it.
        (report.exe, report.argv) = (program.exe, program.argv);
    }
    let recorded = app.access().enter().and_then(|_ids| {
        Recorded::of(target.app as i32)
            .inspect_err(|error| {
                tracing::warn!(error = error as &dyn std::error::Error, "the app was not recorded")
            })
            .map_err(|_| TargetError::Vanished { pid: target.app })
    });
    let auto = auto(&report, supervisor.as_ref());
    // devsync-run's own words are not how the app is started.
    let recorded = recorded.ok().filter(|_| app.pid() != holder_pid(target));
    Ok(Opened { root, report, auto, app, supervisor, recorded, held })
}

/// The supervisor's pid, or none that a process has.
fn holder_pid(target: &Target) -> u32 {
    target.supervisor.unwrap_or_default()
}

fn held(supervisor: &Supervisor) -> Option<Held> {
    match supervisor.status().ok()?.state {
        State::Held(held) | State::Waiting { held, .. } => Some(held),
        State::Running { .. } | State::Stopping { .. } => None,
    }
}

/// What `auto` means: a supervisor if there is one, else re-exec if permitted; a container is never ended.
fn auto(report: &TargetReport, supervisor: Option<&Supervisor>) -> AutoRestart {
    if supervisor.is_some() {
        return AutoRestart {
            mode: RestartMode::Supervise,
            why: "the app runs under devsync-run".to_owned(),
            hint: None,
        };
    }
    match &report.ptrace {
        Verdict::Permitted => AutoRestart {
            mode: RestartMode::Reexec,
            why: "the app may be traced, so it is restarted in place".to_owned(),
            hint: None,
        },
        Verdict::Refused(refusal) => AutoRestart {
            mode: RestartMode::None,
            why: format!("the app cannot be restarted in place: {}", refusal.cause),
            hint: Some(format!("{}; or start the app under devsync-run", refusal.hint)),
        },
    }
}

/// A target error as the client is told.
pub(super) fn refusal(what: String, error: &TargetError) -> Refusal {
    Refusal { what, cause: error.to_string(), hint: error.hint(), fatal: false }
}
