//! The processes that a program started and left behind when it was replaced: workers, helpers. Ends them, so that
//! they neither keep its ports nor work on. Only those of the same mount namespace: no shell, no other container.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

use crate::sys::pidfd::PidFd;
use crate::sys::proc_task;

/// How long they may take for SIGTERM, then for SIGKILL.
const TERM_TIME: Duration = Duration::from_millis(1000);
const KILL_TIME: Duration = Duration::from_millis(2000);

/// The processes below `pid` in its mount namespace that are alive.
pub fn of(pid: i32) -> Vec<i32> {
    let Ok(namespace) = proc_task::mount_namespace(pid) else { return Vec::new() };
    let alive = |pid: &i32| proc_task::status(*pid).is_ok_and(|status| !status.is_dead());
    let same = |pid: &i32| proc_task::mount_namespace(*pid).is_ok_and(|theirs| theirs == namespace);
    let found = below(pid, |pid| proc_task::children(pid).unwrap_or_default());
    found.into_iter().filter(|pid| alive(pid) && same(pid)).collect()
}

fn below(top: i32, children: impl Fn(i32) -> Vec<i32>) -> BTreeSet<i32> {
    let (mut found, mut next) = (BTreeSet::new(), vec![top]);
    while let Some(pid) = next.pop() {
        next.extend(children(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

/// Whether a child of the process is dead and not collected.
pub(crate) fn has_dead_children(pid: i32) -> bool {
    let dead = |child: i32| proc_task::status(child).is_ok_and(|status| status.state == 'Z');
    proc_task::children(pid).unwrap_or_default().into_iter().any(dead)
}

/// Ends the descendants of a process: SIGTERM, a moment, SIGKILL. Answers how many there were.
pub fn end(pid: i32) -> u32 {
    // Twice, because one that forked meanwhile leaves a child that the first look did not see.
    match end_all(&of(pid)) {
        0 => 0,
        first => first + end_all(&of(pid)),
    }
}

fn end_all(pids: &[i32]) -> u32 {
    let mut alive: Vec<PidFd> = pids.iter().filter_map(|pid| PidFd::open(pid.cast_unsigned()).ok()).collect();
    let count = alive.len() as u32;
    for (signal, time) in [(libc::SIGTERM, TERM_TIME), (libc::SIGKILL, KILL_TIME)] {
        for pidfd in &alive {
            // Ended in the meantime, or not ours to end: the wait will tell.
            let _ = pidfd.send_signal(signal);
            let _ = pidfd.send_signal(libc::SIGCONT);
        }
        let deadline = Instant::now() + time;
        alive.retain(|pidfd| !has_ended(pidfd, deadline));
        if alive.is_empty() {
            break;
        }
    }
    count
}

/// Waits until a process has ended; false at the deadline.
fn has_ended(pidfd: &PidFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    pidfd.wait_exit(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grandchildren_count_and_cousins_do_not() {
        let children = |pid| match pid {
            1 => vec![2, 5],
            2 => vec![3],
            3 => vec![4],
            5 => vec![6],
            _ => vec![],
        };
        assert_eq!(below(2, children), BTreeSet::from([3, 4]));
        assert_eq!(below(6, children), BTreeSet::new());
    }
}
