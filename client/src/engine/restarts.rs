//! Restarts of an attach: asked for by saves, sent when the files are quiet, a newer one in an older one's place.

use std::time::{Duration, Instant};

use devsync_protocol::message::{BatchId, Request};
use devsync_protocol::path::RelPath;
use devsync_protocol::restart::{AppState, RestartFailure, RestartMode, RestartReport};

use crate::error::CommandError;
use crate::report::{Event, Hops, Reporter, Restarted, ms, plain_line};
use crate::rule::RestartRules;
use crate::session::{self, Handle, SessionError};

/// Lines that are shown of what a crashed app printed last.
const LAST_LINES: usize = 40;
/// An app that ends so soon after its restart ended because of it.
const BECAUSE: Duration = Duration::from_secs(60);
/// So often in a row, and it is not restarted again before the next save: a container that comes up again and again
/// must not be brought down each time.
const STRIKES: u32 = 2;

/// What a held app's user does.
const KEPT: &str = "the container is kept: the next save or `devsync restart` starts the app again";

pub(super) struct Restarts {
    rules: RestartRules,
    grace: Duration,
    app: String,
    /// Asked for and not sent yet.
    due: Option<Due>,
    /// Sent and not over yet.
    running: Option<Running>,
    seq: u32,
    /// How the last one failed.
    failure: Option<CommandError>,
    /// When the app was last restarted.
    restarted: Option<Instant>,
    /// How often in a row the app ended right after a restart.
    strikes: u32,
    /// The app is started when the first sync is in place, whatever that changed.
    waits: bool,
}

struct Due {
    mode: RestartMode,
    after: Option<BatchId>,
    since: Instant,
    hops: Hops,
}

struct Running {
    seq: u32,
    mode: RestartMode,
    since: Instant,
    hops: Hops,
    /// Who waits for it beside the user.
    then: Option<tokio::sync::oneshot::Sender<Result<String, CommandError>>>,
    words: String,
}

impl Restarts {
    pub(super) fn new(rules: RestartRules, grace: Duration, app: String) -> Self {
        Self {
            rules,
            grace,
            app,
            due: None,
            running: None,
            seq: 0,
            failure: None,
            restarted: None,
            strikes: 0,
            waits: false,
        }
    }

    /// Nothing of the app ran when the session began, and nothing will before a restart asks for it.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The app is another process now, or is called otherwise.
    pub(super) fn app_is(&mut self, name: String) {
        self.app = name;
    }

    /// The session is lost. What was asked for is asked for again in the next one, unless the app's process is gone
    /// (`is_gone`): the one that comes begins with the files that it finds.
    pub(super) fn lose(&mut self, is_gone: bool, why: &CommandError) {
        if is_gone {
            let soon =
                self.restarted.take().is_some_and(|at| at.elapsed() < BECAUSE) || self.running.is_some();
            self.strikes = if soon { self.strikes + 1 } else { 0 };
            self.due = None;
        }
        if let Some(due) = &mut self.due {
            // Batches are those of a session.
            due.after = None;
        }
        // The next session tells it again.
        self.waits = false;
        let Some(Running { mode, since, hops, then, words, .. }) = self.running.take() else { return };
        match then {
            Some(then) => drop(then.send(Err(why.again()))),
            // It is not known whether it was done; twice is better than not at all.
            None if words.is_empty() && !is_gone => {
                self.due.get_or_insert(Due { mode, after: None, since, hops });
            }
            None => {}
        }
    }

    /// Why the app is not restarted after another first sync, where that only brought it down.
    pub(super) fn held(&self) -> Option<String> {
        (self.strikes >= STRIKES)
            .then(|| format!("{} ended right after each of the last {} restarts", self.app, self.strikes))
    }

    /// Somebody changed something or asked for it: the app may be restarted again.
    pub(super) fn forgive(&mut self) {
        self.strikes = 0;
    }

    pub(super) fn mode(&self) -> &RestartMode {
        self.rules.otherwise()
    }

    /// `paths` were changed, by a batch that was committed in this session or by an earlier one. True where a restart
    /// follows.
    pub(super) fn ask(
        &mut self,
        paths: &[RelPath],
        batch: Option<BatchId>,
        since: Instant,
        hops: Hops,
    ) -> bool {
        let mode = match std::mem::take(&mut self.waits) {
            // Also an app that needs no restart after a save has to be started once.
            true => RestartMode::Auto,
            false => self.rules.for_batch(paths),
        };
        match (&mut self.due, mode) {
            (None, RestartMode::None) => return false,
            (Some(due), RestartMode::None) => due.after = batch,
            // An older one that waits was for an older save: the newer one does for both.
            (due, mode) => *due = Some(Due { mode, after: batch, since, hops }),
        }
        true
    }

    /// Sends what is due; an older one that still runs is superseded.
    pub(super) async fn send(&mut self, handle: &Handle) -> Result<(), SessionError> {
        let Some(Due { mode, after, since, hops }) = self.due.take() else { return Ok(()) };
        // Before it is sent: a loss meanwhile is a loss of it.
        self.seq += 1;
        self.running = Some(Running {
            seq: self.seq,
            mode: mode.clone(),
            since,
            hops,
            then: None,
            words: String::new(),
        });
        self.push(handle, mode, self.grace, after).await
    }

    /// One by hand; `then` hears how it went.
    pub(super) async fn by_hand(
        &mut self,
        handle: &Handle,
        mode: Option<RestartMode>,
        grace: Option<Duration>,
        then: tokio::sync::oneshot::Sender<Result<String, CommandError>>,
    ) -> Result<(), SessionError> {
        let by_rule = self.rules.otherwise().clone();
        // Who asks for a restart wants one, also of an app that needs none after a save.
        let by_rule = if by_rule == RestartMode::None { RestartMode::Auto } else { by_rule };
        let mode = mode.unwrap_or(by_rule);
        let (since, words, hops) = (Instant::now(), String::new(), Hops::default());
        self.forgive();
        self.seq += 1;
        self.running =
            Some(Running { seq: self.seq, mode: mode.clone(), since, hops, then: Some(then), words });
        self.push(handle, mode, grace.unwrap_or(self.grace), None).await
    }

    async fn push(
        &mut self,
        handle: &Handle,
        mode: RestartMode,
        grace: Duration,
        after: Option<BatchId>,
    ) -> Result<(), SessionError> {
        (self.failure, self.waits) = (None, false);
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let mut outgoing = handle.outgoing().await;
        outgoing.push(&Request::Restart { seq: self.seq, after, mode, grace_ms }).await?;
        outgoing.flush().await
    }

    pub(super) fn on_event(&mut self, event: session::Event, reporter: &mut Reporter) {
        match event {
            session::Event::Restarted { seq, report } => self.restarted(seq, report, reporter),
            session::Event::RestartFailed { seq, failure } => self.failed(seq, failure, reporter),
            session::Event::Ready { seq, report } => {
                let Some(mut running) = self.running.take_if(|r| r.seq == seq) else { return };
                running.hops.ready = Some(report.micros as f64 / 1000.0);
                running.hops.total = ms(running.since.elapsed());
                let (ports, missing) = (report.ports, report.missing);
                let event = Event::Ready { ports, missing, ms: running.hops };
                if let Some(then) = running.then.take() {
                    let words = crate::report::ready_words(&event).map(|w| format!(" · {w}"));
                    let _ = then.send(Ok(format!("{}{}", running.words, words.unwrap_or_default())));
                }
                reporter.event(&event);
            }
            session::Event::Held { waits: true, .. } => {
                self.waits = true;
                let text = format!("{} is waiting for its first sync, and is started after it", self.app);
                reporter.event(&Event::Note { text, hint: None });
            }
            session::Event::Held { cause, output, waits: false } => {
                let text = format!("{} does not run: {cause}{}", self.app, its_last_output(&output));
                reporter.event(&Event::Note { text, hint: Some(KEPT.to_owned()) });
            }
            session::Event::Crashed { cause, output } => {
                let text = format!("{cause}{}", its_last_output(&output));
                let hint = KEPT;
                // Nothing becomes ready any more of the restart that brought this up.
                if let Some(mut running) = self.running.take_if(|r| !r.words.is_empty()) {
                    let failure = CommandError::new("the app was restarted, and crashed").cause(text.clone());
                    if let Some(then) = running.then.take() {
                        let _ = then.send(Err(failure.hint(hint)));
                    } else {
                        self.failure = Some(failure.hint(hint));
                    }
                }
                reporter.event(&Event::Note { text, hint: Some(hint.to_owned()) });
            }
            session::Event::Ended(_) => {}
        }
    }

    fn restarted(&mut self, seq: u32, report: RestartReport, reporter: &mut Reporter) {
        let Some(running) = self.running.as_mut().filter(|r| r.seq == seq) else { return };
        running.hops.restart = Some(report.micros as f64 / 1000.0);
        running.hops.total = ms(running.since.elapsed());
        let RestartReport { mode, old_pid, new_pid, count, .. } = report;
        let no_wait = mode == RestartMode::None;
        if !no_wait {
            self.restarted = Some(Instant::now());
        }
        let app = self.app.clone();
        let event = Restarted { app, mode, old_pid, new_pid, count, ms: running.hops };
        running.words = crate::report::restarted_words(&event);
        reporter.event(&Event::Restarted(event));
        if no_wait {
            // Nothing was restarted, so nothing becomes ready.
            reporter.end_line();
            if let Some(mut running) = self.running.take()
                && let Some(then) = running.then.take()
            {
                let _ = then.send(Ok(running.words));
            }
        }
    }

    fn failed(&mut self, seq: u32, failure: RestartFailure, reporter: &mut Reporter) {
        let Some(mut running) = self.running.take_if(|r| r.seq == seq) else { return };
        self.failure = Some(error(failure.clone()));
        if let Some(then) = running.then.take() {
            let _ = then.send(Err(error(failure.clone())));
        }
        let RestartFailure { what, cause, hint, app } = failure;
        if matches!(app, AppState::Gone | AppState::Unknown) {
            // What ends now ended because of it.
            self.restarted = Some(Instant::now());
        }
        reporter.event(&Event::RestartFailed { what, cause, hint, app: app.to_string(), state: Some(app) });
    }

    /// How the last restart failed, for who ends with it.
    pub(super) fn take_failure(&mut self) -> Option<CommandError> {
        self.failure.take()
    }
}

fn its_last_output(output: &[u8]) -> String {
    let output = last_lines(output);
    if output.is_empty() { output } else { format!("\nits last output:{output}") }
}

/// The end of what a program printed, each line below the other and indented.
fn last_lines(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].iter().map(|line| format!("\n  {}", plain_line(&line.replace('\t', "    ")))).collect()
}

fn error(failure: RestartFailure) -> CommandError {
    let RestartFailure { what, cause, hint, app } = failure;
    CommandError::new(format!("the app was not restarted ({app})"))
        .cause(format!("{what}: {cause}"))
        .hint_opt(Some(hint).filter(|h| !h.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts() -> Restarts {
        let rules = RestartRules::new(&[], RestartMode::Reexec);
        Restarts::new(rules, Duration::from_secs(1), "demo".to_owned())
    }

    #[test]
    fn an_app_that_ends_after_each_restart_is_left_alone_until_the_next_save() {
        let (mut restarts, why) = (restarts(), CommandError::new("the app is gone"));
        for _ in 0..STRIKES {
            assert_eq!(restarts.held(), None);
            restarts.restarted = Some(Instant::now());
            restarts.lose(true, &why);
        }
        assert!(restarts.held().is_some_and(|held| held.contains("demo")));
        // The agent's end says nothing about the app.
        restarts.lose(false, &why);
        assert!(restarts.held().is_some());
        restarts.forgive();
        assert_eq!(restarts.held(), None);
        // One that ends without having been restarted has another reason.
        restarts.lose(true, &why);
        restarts.lose(true, &why);
        assert_eq!(restarts.held(), None);
    }

    #[test]
    fn a_restart_whose_outcome_was_lost_is_asked_for_again() {
        let (mut restarts, why) = (restarts(), CommandError::new("the link is cut"));
        let running = |words: &str| {
            let (mode, since, words) = (RestartMode::Reexec, Instant::now(), words.to_owned());
            Some(Running { seq: 1, mode, since, hops: Hops::default(), then: None, words })
        };
        restarts.running = running("");
        restarts.lose(false, &why);
        assert!(restarts.is_due() && !restarts.is_running());
        // The process that comes begins with the files that are there.
        restarts.lose(true, &why);
        assert!(!restarts.is_due());
        restarts.running = running("restarted demo");
        restarts.lose(false, &why);
        assert!(!restarts.is_due());
    }

    #[test]
    fn a_crash_is_shown_line_by_line() {
        assert_eq!(last_lines(b"one\n\n\x1b[2Jtwo\r\n"), "\n  one\n  \\u{1b}[2Jtwo");
        assert_eq!(last_lines(b""), "");
        assert_eq!(last_lines("x\n".repeat(99).as_bytes()).lines().count(), LAST_LINES + 1);
    }
}
