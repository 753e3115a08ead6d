//! Waiting: for the next change of any root, and for quiet in all of them.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::root::{Root, Work};
use crate::local::{Change, Quiet, Rescan};

/// The next change of any root, with the root's position; `None` where its watcher ended.
pub(super) async fn next_change(roots: &mut [Root]) -> (usize, Option<Change>) {
    poll_fn(|cx| {
        for (index, root) in roots.iter_mut().enumerate() {
            if let Poll::Ready(change) = root.poll_change(cx) {
                return Poll::Ready((index, change));
            }
        }
        Poll::Pending
    })
    .await
}

/// Returns once no root saw an event for `window`.
pub(super) async fn quiet(mut quiets: Vec<Quiet>, window: Duration) {
    loop {
        for quiet in &mut quiets {
            quiet.wait(window).await;
        }
        if quiets.iter().all(|quiet| is_quiet(quiet, window)) {
            return;
        }
    }
}

pub(super) fn is_quiet(quiet: &Quiet, window: Duration) -> bool {
    let activity = quiet.activity();
    !activity.pending && activity.last_event.is_none_or(|last| last.elapsed() >= window)
}

/// True where this may be the beginning of a removal of everything, and not a rename or an editor's save.
pub(super) fn more_may_go(work: &Work) -> bool {
    let most = if work.changed.is_empty() { 0 } else { 2 };
    work.deleted.len() > most
}

pub(super) fn nothing(first_event: Instant) -> Change {
    Change { paths: BTreeSet::new(), rescan: None, first_event, notes: Vec::new() }
}

/// Everything is to be looked at.
pub(super) fn everything() -> Change {
    Change { rescan: Some(Rescan::Everything), ..nothing(Instant::now()) }
}

/// Adds what `more` names.
pub(super) fn merge(change: &mut Change, more: Change) {
    change.paths.extend(more.paths);
    change.first_event = change.first_event.min(more.first_event);
    change.rescan = match (change.rescan.take(), more.rescan) {
        (Some(Rescan::Everything), _) | (_, Some(Rescan::Everything)) => Some(Rescan::Everything),
        (Some(Rescan::Dirs(mut dirs)), Some(Rescan::Dirs(more))) => {
            dirs.extend(more);
            Some(Rescan::Dirs(dirs))
        }
        (one, other) => one.or(other),
    };
}

#[cfg(test)]
mod tests {
    use devsync_protocol::path::RelPath;

    use super::*;

    #[test]
    fn merged_changes_name_all_that_either_named() {
        let path = |name: &str| RelPath::new(name).expect("valid");
        let dirs = |name: &str| Some(Rescan::Dirs(BTreeSet::from([path(name)])));
        let now = Instant::now();
        let mut change = nothing(now + Duration::from_secs(1));
        merge(&mut change, Change { paths: BTreeSet::from([path("a")]), rescan: dirs("d"), ..nothing(now) });
        merge(&mut change, Change { rescan: dirs("e"), ..nothing(now) });
        assert_eq!((change.paths.len(), change.first_event), (1, now));
        assert_eq!(change.rescan, Some(Rescan::Dirs(BTreeSet::from([path("d"), path("e")]))));
        merge(&mut change, everything());
        assert_eq!(change.rescan, Some(Rescan::Everything));
    }
}
