//! Ends the app and everything below it: TERM to the group, grace, KILL to each descendant, until the kernel says that no child is
//! left and no socket of theirs listens.

use std::time::{Duration, Instant};

use super::Supervisor;
use super::life::{Clearing, End, Phase, Stage, Then};
use super::wire::Cause;
use crate::sys::process_tree::PID_LIMIT;
use crate::sys::{listeners, process_tree, signals};

/// How often the sockets of ended processes are looked at, and for how long.
pub(super) const PORT_CHECK: Duration = Duration::from_millis(2);
const PORT_PATIENCE: Duration = Duration::from_secs(1);
/// Pids asked about in one turn of the loop where /proc shows nothing.
const SLICE: i32 = 65_536;
/// PID 1 is nobody's child.
const FIRST_PID: i32 = 2;
/// Between two rounds of KILL: a process may have forked while the first one looked.
const KILL_ROUND: Duration = Duration::from_millis(20);
/// A process that survives SIGKILL for so long is stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Stage {
    fn kill(now: Instant) -> Self {
        Self::Kill { next: now, until: now + KILL_PATIENCE, from: FIRST_PID }
    }
}

impl Supervisor {
    /// Begins to end the running app.
    pub(super) fn clear_running(&mut self, then: Then) {
        let ports = listeners::held_by(&process_tree::own_descendants());
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
            Then::Exit(_) => Stage::kill(now),
            _ => Stage::Term { until: now + self.config.grace },
        };
        self.begin(stage, then);
    }

    /// Begins to end processes that survived before.
    pub(super) fn clear_survivors(&mut self, then: Then) {
        let now = Instant::now();
        self.begin(Stage::kill(now), then);
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
                Stage::kill(now)
            }
            stage => stage,
        };
        clearing.stage = stage;
        match stage {
            Stage::Term { .. } => None,
            Stage::Kill { until, .. } if until <= now => self.give_up(),
            Stage::Kill { next, until, from } => {
                if next <= now {
                    let (pause, from) = kill_round(self.group, from);
                    clearing.stage = Stage::Kill { next: now + pause, until, from };
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
        let left = survivors().try_into().unwrap_or(u32::MAX);
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
        // What was never started has no status of its own.
        let end = self.end.as_ref().filter(|end| end.cause != Cause::FirstSync);
        end.map_or(by_signal, End::exit_code)
    }
}

/// One round: everything that can be found now, from the pid `from` on where /proc shows nothing. Who forks meanwhile is found by
/// the next round. When that is due, and where it goes on.
fn kill_round(group: Option<i32>, from: i32) -> (Duration, i32) {
    if let Some(group) = group {
        let _ = signals::send_group(group, libc::SIGKILL);
    }
    let listed = process_tree::own_descendants();
    if !listed.is_empty() {
        kill_each(&listed);
        return (KILL_ROUND, FIRST_PID);
    }
    let to = from.saturating_add(SLICE).min(PID_LIMIT);
    let asked = process_tree::own_children_by_asking(from..to);
    kill_each(&asked);
    if asked.is_empty() && to < PID_LIMIT { (Duration::ZERO, to) } else { (KILL_ROUND, FIRST_PID) }
}

/// ESRCH: it ended by itself. EPERM (a set-uid program): the round is repeated, and giving up says how many are left.
fn kill_each(pids: &[i32]) {
    for pid in pids {
        let _ = signals::send(*pid, libc::SIGKILL);
    }
}

/// How many are left: those in /proc, or the direct children where it shows none.
fn survivors() -> usize {
    match process_tree::own_descendants().len() {
        0 => process_tree::own_children_by_asking(FIRST_PID..PID_LIMIT).len(),
        listed => listed,
    }
}
