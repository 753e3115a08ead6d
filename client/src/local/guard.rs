//! Decides whether what happened to the local files looks meant: the last check before deletes are sent.
//!
//! Pure: it counts and answers, and asks nobody.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Tree;
use thiserror::Error;

/// Smaller trees are never asked about: in them a quarter is one refactoring.
pub const ASK_FROM: usize = 20;
/// Deletes so near to each other are judged together: a slow `rm -rf` comes in many batches.
const TOGETHER: Duration = Duration::from_secs(10);

/// Why a session must not go on by itself. Nothing has been deleted when one of these is given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootLost {
    #[error("{root} vanished; nothing was deleted in the pod")]
    Vanished { root: String },
    #[error("{root} is not a directory any more; nothing was deleted in the pod")]
    NotADirectory { root: String },
    #[error("{root} is empty now ({had} entries before); nothing was deleted in the pod")]
    Emptied { root: String, had: usize },
}

/// What to do with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// Send nothing until the user says that this is meant.
    Ask {
        deletes: usize,
        of: usize,
    },
}

/// The rule about mass deletes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    /// The user said that deletes of any number are meant.
    pub accept_deletes: bool,
}

impl Guard {
    /// Judges a batch that deletes `deletes` of the `of` entries that the tree has.
    pub fn judge(&self, deletes: usize, of: usize) -> Verdict {
        if self.accept_deletes || of < ASK_FROM || deletes.saturating_mul(4) <= of {
            Verdict::Go
        } else {
            Verdict::Ask { deletes, of }
        }
    }

    /// As [`Guard::judge`], counting those of `deleted` that `tree` has.
    pub fn judge_tree<'a>(&self, tree: &Tree, deleted: impl IntoIterator<Item = &'a RelPath>) -> Verdict {
        let deletes = deleted.into_iter().filter(|path| tree.0.contains_key(path)).count();
        self.judge(deletes, tree.0.len())
    }
}

/// The deletes of the last batches of one root.
#[derive(Debug, Default)]
pub struct RecentDeletes {
    batches: VecDeque<(Instant, usize)>,
    accepted: Option<Instant>,
}

impl RecentDeletes {
    /// Judges a batch together with those before it, by the size that the tree had before them.
    pub fn judge(&mut self, guard: Guard, now: Instant, deletes: usize, of: usize) -> Verdict {
        let is_recent = |then: Instant| now.saturating_duration_since(then) < TOGETHER;
        while self.batches.front().is_some_and(|(then, _)| !is_recent(*then)) {
            self.batches.pop_front();
        }
        if deletes == 0 {
            return Verdict::Go;
        }
        let before: usize = self.batches.iter().map(|(_, deletes)| deletes).sum();
        self.batches.push_back((now, deletes));
        match self.accepted.filter(|then| is_recent(*then)) {
            Some(_) => Verdict::Go,
            None => guard.judge(before + deletes, before + of),
        }
    }

    /// The user said that they are meant: those that follow at once are too.
    pub fn accept(&mut self, now: Instant) {
        self.accepted = Some(now);
        self.batches.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devsync_protocol::tree::Node;

    #[test]
    fn more_than_a_quarter_of_a_tree_of_some_size_is_asked_about() {
        let guard = Guard::default();
        for (deletes, of, go) in
            [(0, 0, true), (19, 19, true), (5, 20, true), (6, 20, false), (20, 20, false), (250, 1000, true)]
        {
            assert_eq!(guard.judge(deletes, of) == Verdict::Go, go, "{deletes} of {of}");
        }
        assert_eq!(Guard { accept_deletes: true }.judge(20, 20), Verdict::Go);
    }

    #[test]
    fn deletes_that_come_slowly_are_judged_together() {
        let (guard, start) = (Guard::default(), Instant::now());
        let mut recent = RecentDeletes::default();
        let mut judge =
            |second, deletes, of| recent.judge(guard, start + Duration::from_secs(second), deletes, of);
        assert_eq!(judge(0, 20, 100), Verdict::Go);
        assert_eq!(judge(2, 5, 80), Verdict::Go);
        assert_eq!(judge(4, 1, 75), Verdict::Ask { deletes: 26, of: 100 });
        assert_eq!(judge(20, 10, 74), Verdict::Go, "long after the others");
        recent.accept(start + Duration::from_secs(21));
        assert_eq!(recent.judge(guard, start + Duration::from_secs(22), 60, 64), Verdict::Go);
    }

    #[test]
    fn only_what_the_tree_has_counts() {
        let path = |i: usize| RelPath::new(format!("f{i}")).expect("valid");
        let tree = Tree((0..20).map(|i| (path(i), Node::Dir { mode: 0o755 })).collect());
        let gone: Vec<_> = (15..40).map(path).collect();
        assert_eq!(Guard::default().judge_tree(&tree, &gone), Verdict::Go);
        let gone: Vec<_> = (14..40).map(path).collect();
        assert_eq!(Guard::default().judge_tree(&tree, &gone), Verdict::Ask { deletes: 6, of: 20 });
    }
}
