//! What the agent may ask, and when its answer is due.

use std::time::{Duration, Instant};

use super::Supervisor;
use super::control::ClientId;
use super::life::{Phase, Then};
use super::wire::{Cause, Held, MAX_SETTLE_MS, Refusal, Reply, Request, State, Status};

/// A connection that waits for the end of a restart.
pub(super) struct Waiter {
    client: ClientId,
    since: Instant,
    settle: Duration,
    old: Option<i32>,
    started: Option<Started>,
}

#[derive(Clone, Copy)]
struct Started {
    pid: i32,
    micros: u64,
    settled: Instant,
}

impl Waiter {
    /// When it can be told that the new app did not crash.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        self.started.map(|started| started.settled)
    }
}

impl Supervisor {
    pub(super) fn take_requests(&mut self) {
        let requests = self.control.as_mut().map(|control| control.turn()).unwrap_or_default();
        for (client, request) in requests {
            match request {
                Request::Status => self.answer(client, &Reply::Status(self.status())),
                Request::Output => self.answer(client, &Reply::Output(self.ring.to_vec())),
                Request::Restart { settle_ms } => self.restart(client, settle_ms),
            }
        }
    }

    fn answer(&mut self, client: ClientId, reply: &Reply) {
        if let Some(control) = &mut self.control {
            control.answer(client, reply);
        }
    }

    /// Begins a restart, or joins the one that has not started the app yet.
    fn restart(&mut self, client: ClientId, settle_ms: u32) {
        let exits =
            matches!(&self.phase, Phase::Clearing(clearing) if matches!(clearing.then, Then::Exit(_)));
        if self.ending.is_some() || exits {
            return self.answer(client, &Reply::Refused(Refusal::Ending));
        }
        let settle = Duration::from_millis(settle_ms.min(MAX_SETTLE_MS).into());
        let old = self.app.map(|app| app.pid);
        self.waiters.push(Waiter { client, since: Instant::now(), settle, old, started: None });
        match &mut self.phase {
            Phase::Running => self.clear_running(Then::Start),
            Phase::Clearing(clearing) => clearing.then = Then::Start,
            Phase::Held { .. } | Phase::BackOff { .. } => self.clear_survivors(Then::Start),
        }
    }

    /// The app runs: who asked for it and does not want to see it settle is answered now.
    pub(super) fn started(&mut self, pid: i32) {
        let now = Instant::now();
        for waiter in &mut self.waiters {
            let micros = now.duration_since(waiter.since).as_micros().try_into().unwrap_or(u64::MAX);
            waiter.started = Some(Started { pid, micros, settled: now + waiter.settle });
        }
        self.answer_settled();
    }

    /// Answers every restart whose app has run for as long as was asked.
    pub(super) fn answer_settled(&mut self) {
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let now = Instant::now();
        let (done, waiting) = self
            .waiters
            .drain(..)
            .partition(|waiter: &Waiter| waiter.settled_at().is_some_and(|at| at <= now));
        self.waiters = waiting;
        let done: Vec<Waiter> = done;
        for waiter in done {
            if let Some(Started { pid, micros, .. }) = waiter.started {
                self.answer(waiter.client, &Reply::Restarted { old: waiter.old, new: pid, micros });
            }
        }
    }

    /// Nothing runs: every restart that waits is told so.
    pub(super) fn held(&mut self) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiters) {
            let held = self.held_since(now);
            self.answer(waiter.client, &Reply::Held { old: waiter.old, held });
        }
    }

    fn status(&self) -> Status {
        let state = match &self.phase {
            Phase::Running => match self.app {
                Some(app) => State::Running { pid: app.pid, for_ms: millis(app.since.elapsed()) },
                None => State::Stopping { pid: None },
            },
            Phase::Clearing(_) => State::Stopping { pid: self.app.map(|app| app.pid) },
            Phase::Held { since } => State::Held(self.held_since(*since)),
            Phase::BackOff { until, since } => State::Waiting {
                held: self.held_since(*since),
                starts_in_ms: millis(until.saturating_duration_since(Instant::now())),
            },
        };
        Status { state, restarts: self.starts.saturating_sub(1) }
    }

    fn held_since(&self, since: Instant) -> Held {
        let cause = self.end.as_ref().map_or(Cause::Exited { code: 0 }, |end| end.cause.clone());
        Held { cause, for_ms: millis(since.elapsed()), output: self.ring.to_vec() }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
