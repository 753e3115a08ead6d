//! Ends the app and everything below it: TERM to the group, grace, KILL to each descendant, until the kernel says that no child is
//! left and no socket of theirs listens.

use std::time::{Duration, Instant};

use super::Supervisor;
use super::life::{Clearing, End, Phase, Stage, Then};
use super::wire::Cause;
use crate::sys::{listeners, process_tree, signals};

/// How often the sockets of ended processes are looked at, and for how long.
pub(super) const PORT_CHECK: Duration = Duration::from_millis(2);
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// Between two rounds of KILL: a process may have forked while the first one looked.
const KILL_ROUND: Duration = Duration::from_millis(20);
/// A process that survives SIGKILL for so long is stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Begins to end the running app.
    pub(super) fn clear_running(&mut self, then: Then) {
        let ports = listeners::held_by(&process_tree::descendants(std::process::id() as i32));
        self.begin(Stage::Term { until: Instant::now() + self.config.grace }, then);
        if let Phase::Clearing(clearing) = &mut self.phase {
            clearing.ports = ports;
        }
    }

    /// Begins to end what an app that ended by itself left behind. At the end of devsync-run that is what the end of a container
    /// does: KILL; else the rest of the group gets its TERM and grace.
    pub(super) fn clear_rest(&mut self, then: Then) {
        let now = Instant::now();
        let stage = match then {
            Then::Exit(_) => Stage::Kill { next: now, until: now + KILL_PATIENCE },
            _ => Stage::Term { until: now + self.config.grace },
        };
        self.begin(stage, then);
    }

    /// Begins to end processes that survived before.
    pub(super) fn clear_survivors(&mut self, then: Then) {
        let now = Instant::now();
        self.begin(Stage::Kill { next: now, until: now + KILL_PATIENCE }, then);
    }

    fn begin(&mut self, stage: Stage, then: Then) {
        if let (Stage::Term { .. }, Some(group)) = (stage, self.group) {
            // An error means that the group is empty, which the next turn sees. A stopped process takes TERM only when continued.
            let _ = signals::send_group(group, libc::SIGTERM);
            let _ = signals::send_group(group, libc::SIGCONT);
        }
        self.phase = Phase::Clearing(Clearing { stage, then, ports: Default::default() });
    }

    /// Takes the next step of the present phase; the exit code when it was the last.
    pub(super) fn advance(&mut self, childless: bool) -> Option<u8> {
        self.forget_empty_group();
        let now = Instant::now();
        match &self.phase {
            Phase::Clearing(_) => self.clear_step(childless, now),
            Phase::Held { .. } | Phase::BackOff { .. } if self.ending.is_some() => Some(self.final_code()),
            Phase::BackOff { until, .. } if *until <= now => {
                self.clear_survivors(Then::Start);
                self.clear_step(childless, now)
            }
            _ => None,
        }
    }

    /// A group without members may be reused as a number, so it is not signalled again.
    fn forget_empty_group(&mut self) {
        if let (None, Some(group)) = (self.app, self.group)
            && signals::send_group(group, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
        {
            self.group = None;
        }
    }

    fn clear_step(&mut self, childless: bool, now: Instant) -> Option<u8> {
        let Phase::Clearing(clearing) = &mut self.phase else { return None };
        let gone = childless && self.app.is_none();
        let stage = match clearing.stage {
            Stage::Term { .. } | Stage::Kill { .. } if gone => Stage::Ports { until: now + PORT_PATIENCE },
            Stage::Term { until } if until <= now || (self.app.is_none() && self.group.is_none()) => {
                Stage::Kill { next: now, until: now + KILL_PATIENCE }
            }
            stage => stage,
        };
        clearing.stage = stage;
        match stage {
            Stage::Term { .. } => None,
            Stage::Kill { until, .. } if until <= now => self.give_up(),
            Stage::Kill { next, until } => {
                if next <= now {
                    clearing.stage = Stage::Kill { next: now + KILL_ROUND, until };
                    kill_all(self.group);
                }
                None
            }
            Stage::Ports { until } if until > now && !listeners::all_closed(&clearing.ports) => None,
            Stage::Ports { .. } => {
                let then = clearing.then;
                self.cleared(then)
            }
        }
    }

    fn cleared(&mut self, then: Then) -> Option<u8> {
        self.group = None;
        match then {
            Then::Exit(code) => return Some(code),
            _ if self.ending.is_some() => return Some(self.final_code()),
            Then::Start => self.start(),
            Then::Hold | Then::BackOff => self.rest(then),
        }
        None
    }

    fn give_up(&mut self) -> Option<u8> {
        let left = process_tree::own_descendants().len().try_into().unwrap_or(u32::MAX);
        self.end = Some(End { cause: Cause::Stuck { left }, ran: Duration::ZERO });
        if self.ending.is_some()
            || matches!(&self.phase, Phase::Clearing(Clearing { then: Then::Exit(_), .. }))
        {
            return Some(self.final_code());
        }
        self.rest(Then::Hold);
        None
    }

    fn final_code(&self) -> u8 {
        let by_signal = 128_u8.wrapping_add(self.ending.unwrap_or_default() as u8);
        self.end.as_ref().map_or(by_signal, End::exit_code)
    }
}

/// One round: everything that can be found now. Who forks meanwhile is found by the next round.
fn kill_all(group: Option<i32>) {
    for pid in process_tree::own_descendants() {
        // ESRCH: it ended by itself. EPERM (a set-uid program): the round is repeated, and giving up says how many are left.
        let _ = signals::send(pid, libc::SIGKILL);
    }
    if let Some(group) = group {
        let _ = signals::send_group(group, libc::SIGKILL);
    }
}
