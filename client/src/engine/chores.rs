//! The commands of `[[on_change]]`: run in the container one after the other, after the batch that asked for them and
//! before its restart. One that failed holds the restart back until it succeeds, so the old process serves on.

use std::collections::BTreeSet;
use std::time::Instant;

use devsync_protocol::path::RelPath;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Engine;
use super::halt::Halt;
use crate::error::CommandError;
use crate::in_container;
use crate::on_change::OnChange;
use crate::program::End;
use crate::report::{Event, ms};

/// Lines that wait to be shown.
const LINES: usize = 256;

pub(super) struct Chores {
    rules: Vec<OnChange>,
    /// Asked for by a batch, in the file's order.
    pending: BTreeSet<usize>,
    /// Not done: the next save asks for them again.
    failed: BTreeSet<usize>,
    running: Option<Running>,
}

struct Running {
    rule: usize,
    task: JoinHandle<Result<End, CommandError>>,
    lines: mpsc::Receiver<String>,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a command has to tell.
pub(super) enum News {
    Line(String),
    Over(Result<End, CommandError>),
}

impl Chores {
    pub(super) fn new(rules: Vec<OnChange>) -> Self {
        Self { rules, pending: BTreeSet::new(), failed: BTreeSet::new(), running: None }
    }

    /// A batch with these paths is in place.
    pub(super) fn touched(&mut self, paths: &[RelPath]) {
        if paths.is_empty() {
            return;
        }
        self.pending.append(&mut self.failed);
        let asked =
            self.rules.iter().enumerate().filter(|(_, rule)| paths.iter().any(|path| rule.is_for(path)));
        self.pending.extend(asked.map(|(at, _)| at));
    }

    /// A restart may follow.
    pub(super) fn are_done(&self) -> bool {
        self.pending.is_empty() && self.failed.is_empty() && self.running.is_none()
    }

    /// The command that is to be started now.
    fn due(&mut self) -> Option<(usize, OnChange)> {
        if self.running.is_some() {
            return None;
        }
        let at = self.pending.pop_first()?;
        Some((at, self.rules.get(at)?.clone()))
    }

    /// The command that ran has ended; gives it and how long it took.
    fn over(&mut self, is_done: bool) -> Option<(String, f64)> {
        let running = self.running.take()?;
        if !is_done && !self.pending.contains(&running.rule) {
            self.failed.insert(running.rule);
        }
        Some((self.rules.get(running.rule)?.words(), ms(running.since.elapsed())))
    }

    /// The session is lost: the command's end would not be heard, and another pod may take the place of this one.
    pub(super) fn lose(&mut self) {
        self.pending.extend(self.running.take().map(|running| running.rule));
    }

    /// For the line that is shown.
    fn words(&self) -> String {
        let rule = self.running.as_ref().and_then(|running| self.rules.get(running.rule));
        rule.map(OnChange::words).unwrap_or_default()
    }
}

/// The next news of the command that runs; waits for ever where none does.
pub(super) async fn next(chores: &mut Chores) -> News {
    let Some(running) = &mut chores.running else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(line) = running.lines.recv() => News::Line(line),
        over = &mut running.task => News::Over(over.unwrap_or_else(|error| {
            Err(CommandError::new("the command's end was lost").cause(error))
        })),
    }
}

impl Engine {
    /// Starts the command that is due, if none runs.
    pub(super) fn start_chore(&mut self) {
        let Some((rule, what)) = self.chores.due() else { return };
        self.reporter.event(&Event::CommandStarted { command: what.words() });
        let (to, lines) = mpsc::channel(LINES);
        let task = tokio::spawn(in_container::run(self.job.route.clone(), what.argv().to_vec(), to));
        self.chores.running = Some(Running { rule, task, lines, since: Instant::now() });
    }

    pub(super) fn on_chore(&mut self, news: News) {
        let over = match news {
            News::Line(line) => {
                let command = self.chores.words();
                return self.reporter.event(&Event::CommandOutput { command, line });
            }
            News::Over(over) => over,
        };
        let is_done = matches!(over, Ok(End::Exit(0)));
        let Some((command, ms)) = self.chores.over(is_done) else { return };
        let (cause, hint) = match over {
            Ok(End::Exit(0)) => return self.reporter.event(&Event::CommandEnded { command, ms }),
            Ok(End::Exit(code)) => (format!("it ended with exit code {code}"), None),
            Ok(End::Signal(name)) => (format!("it was ended by SIG{name}"), None),
            Ok(End::Missing(why)) => (format!("it is not in the container: {why}"), None),
            Err(error) => (error.line(), error.get_hint().map(str::to_owned)),
        };
        let kept = "the next save runs it again; `devsync restart` restarts the app all the same";
        let hint = Some(hint.unwrap_or_else(|| kept.to_owned()));
        self.reporter.event(&Event::CommandFailed { command, cause, hint });
    }

    /// All of them to their end; for `--once`.
    pub(super) async fn settle_chores(&mut self) -> Result<(), Halt> {
        loop {
            self.start_chore();
            if self.chores.running.is_none() {
                break;
            }
            let news = next(&mut self.chores).await;
            self.on_chore(news);
        }
        match self.chores.failed.len() {
            0 => Ok(()),
            _ => Err(CommandError::new("the app was not restarted: a command of on_change failed").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chores() -> Chores {
        let rule = |text| toml::from_str(text).expect("a rule");
        Chores::new(vec![rule("paths = ['a']\nrun = ['one']"), rule("paths = ['a', 'b']\nrun = ['two']")])
    }

    fn paths(names: &[&str]) -> Vec<RelPath> {
        names.iter().map(|name| RelPath::new(*name).expect("a path")).collect()
    }

    fn runs(chores: &mut Chores) -> Option<usize> {
        let (rule, _) = chores.due()?;
        let (_, lines) = mpsc::channel(1);
        let task = tokio::spawn(std::future::pending());
        chores.running = Some(Running { rule, task, lines, since: Instant::now() });
        Some(rule)
    }

    #[tokio::test]
    async fn a_command_that_failed_holds_the_restart_back_until_it_is_done() {
        let mut chores = chores();
        chores.touched(&paths(&["c"]));
        assert!(chores.are_done());
        chores.touched(&paths(&["a", "c"]));
        assert_eq!((runs(&mut chores), runs(&mut chores)), (Some(0), None));
        chores.over(true);
        assert_eq!((runs(&mut chores), chores.are_done()), (Some(1), false));
        chores.over(false);
        assert!(!chores.are_done() && runs(&mut chores).is_none(), "it is not tried again by itself");
        chores.touched(&[]);
        assert_eq!(runs(&mut chores), None);
        chores.touched(&paths(&["c"]));
        assert_eq!(runs(&mut chores), Some(1));
        // Asked for again while it ran: what it began with is old.
        chores.touched(&paths(&["b"]));
        chores.over(true);
        assert_eq!(runs(&mut chores), Some(1));
        // The session is lost while it runs: it runs again in the next.
        chores.lose();
        assert_eq!((chores.are_done(), runs(&mut chores)), (false, Some(1)));
        chores.over(true);
        assert!(chores.are_done());
    }
}
