//! Which reply belongs to whom.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use devsync_protocol::message::{Refusal, Reply};
use devsync_protocol::restart::{ReadyReport, RestartFailure, RestartReport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SessionError;

/// Replies that may wait to be taken; more of them hold the agent back.
const QUEUED: usize = 64;

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Open,
    Compare,
    Manifest,
    Commit,
    Verify,
    Pull,
    Search,
    Exists,
}

impl Call {
    /// Whether `reply` answers this, and if so whether it is the last part.
    fn takes(self, reply: &Reply) -> Option<bool> {
        match (self, reply) {
            (Call::Compare, Reply::Compared { last, .. })
            | (Call::Manifest, Reply::Needs { last, .. })
            | (Call::Verify, Reply::Digests { last, .. }) => Some(*last),
            (Call::Pull, Reply::PullEntry(_) | Reply::PullData(_)) => Some(false),
            (Call::Open, Reply::Opened { .. })
            | (Call::Commit, Reply::Committed(_))
            | (Call::Pull, Reply::PullEnd { .. })
            | (Call::Search, Reply::Found { .. })
            | (Call::Exists, Reply::Exists { .. }) => Some(true),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Call::Open => "open",
            Call::Compare => "compare",
            Call::Manifest => "manifest",
            Call::Commit => "commit",
            Call::Verify => "verify",
            Call::Pull => "pull",
            Call::Search => "search",
            Call::Exists => "exists",
        }
    }
}

/// A reply's name, for an error message.
pub(super) fn name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Welcome { .. } => "welcome",
        Reply::Opened { .. } => "opened",
        Reply::Compared { .. } => "compared",
        Reply::Needs { .. } => "needs",
        Reply::Committed(_) => "committed",
        Reply::Restarted { .. } => "restarted",
        Reply::RestartFailed { .. } => "restart-failed",
        Reply::Ready { .. } => "ready",
        Reply::Digests { .. } => "digests",
        Reply::PullEntry(_) => "pull-entry",
        Reply::PullData(_) => "pull-data",
        Reply::PullEnd { .. } => "pull-end",
        Reply::Found { .. } => "found",
        Reply::Exists { .. } => "exists",
        Reply::Pong { .. } => "pong",
        Reply::Gone { .. } => "gone",
        Reply::Crashed { .. } => "crashed",
        Reply::Refused(_) => "refused",
        Reply::Held { .. } => "held",
    }
}

/// What nobody asked for, or what is answered in its own time.
#[derive(Debug)]
pub enum Event {
    Restarted {
        seq: u32,
        report: RestartReport,
    },
    RestartFailed {
        seq: u32,
        failure: RestartFailure,
    },
    Ready {
        seq: u32,
        report: ReadyReport,
    },
    /// The app crashed, and its container is held for the next start.
    Crashed {
        cause: String,
        output: Vec<u8>,
    },
    /// When the session began no app ran; `waits`: it is started when the first sync is in place.
    Held {
        cause: String,
        output: Vec<u8>,
        waits: bool,
    },
    /// The session is over.
    Ended(SessionError),
}

/// The answers to one request, in order.
pub struct Answers {
    call: Call,
    replies: mpsc::Receiver<Result<Reply, SessionError>>,
}

impl Answers {
    /// The next part; an error where the request was refused or the session ended.
    pub async fn next(&mut self) -> Result<Reply, SessionError> {
        self.replies.recv().await.unwrap_or(Err(SessionError::Ended { said: None }))
    }

    /// The only answer.
    pub async fn one(mut self) -> Result<Reply, SessionError> {
        self.next().await
    }

    /// The error of a reply that [`Call::takes`] let through but the caller cannot use.
    pub fn unexpected(&self, reply: &Reply) -> SessionError {
        SessionError::Unexpected { call: self.call.name(), reply: name(reply) }
    }
}

struct Waiter {
    call: Call,
    tx: mpsc::Sender<Result<Reply, SessionError>>,
}

pub(super) struct Router {
    queue: Mutex<Queue>,
    events: mpsc::Sender<Event>,
    /// The session has ended: nothing that is still being written has a reader.
    over: CancellationToken,
}

#[derive(Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    ended: Option<SessionError>,
}

impl Router {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { queue: Mutex::default(), events, over: CancellationToken::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `work` unless the session ends meanwhile: a peer that stopped reading stops no writer.
    pub(super) async fn unless_over<T>(
        &self,
        work: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => {
                Err(self.queue().ended.clone().unwrap_or(SessionError::Ended { said: None }))
            }
            done = work => done,
        }
    }

    pub(super) fn expect(&self, call: Call) -> Answers {
        let (tx, replies) = mpsc::channel(QUEUED);
        let mut queue = self.queue();
        match &queue.ended {
            Some(error) => {
                let _ = tx.try_send(Err(error.clone()));
            }
            None => queue.waiters.push_back(Waiter { call, tx }),
        }
        Answers { call, replies }
    }

    /// Hands a reply to who waits for it. A waiter that went away is skipped, its replies are dropped.
    pub(super) async fn route(&self, reply: Reply) -> Result<(), SessionError> {
        let event = match reply {
            Reply::Pong { .. } => return Ok(()),
            Reply::Restarted { seq, report } => Event::Restarted { seq, report },
            Reply::RestartFailed { seq, failure } => Event::RestartFailed { seq, failure },
            Reply::Ready { seq, report } => Event::Ready { seq, report },
            Reply::Crashed { cause, output } => Event::Crashed { cause, output },
            Reply::Held { cause, output, waits } => Event::Held { cause, output, waits },
            Reply::Gone { reason } => return Err(SessionError::Gone { reason }),
            Reply::Refused(refusal) => return self.refused(refusal).await,
            reply => return self.answer(reply).await,
        };
        match self.events.try_send(event) {
            // The reader never waits for events: who takes them may be waiting for a reply.
            Err(mpsc::error::TrySendError::Full(_)) => Err(SessionError::Flood),
            _ => Ok(()),
        }
    }

    async fn refused(&self, refusal: Refusal) -> Result<(), SessionError> {
        let fatal = refusal.fatal;
        let error = SessionError::Refused(refusal);
        let waiter = self.queue().waiters.pop_front();
        match waiter {
            Some(waiter) => {
                let _ = waiter.tx.send(Err(error.clone())).await;
                if fatal { Err(error) } else { Ok(()) }
            }
            None => Err(error),
        }
    }

    async fn answer(&self, reply: Reply) -> Result<(), SessionError> {
        let tx = {
            let mut queue = self.queue();
            let call = queue.waiters.front().map(|w| w.call);
            let last = call.and_then(|call| call.takes(&reply));
            let Some(last) = last else {
                let call = call.map_or("nothing", Call::name);
                return Err(SessionError::Unexpected { call, reply: name(&reply) });
            };
            match last {
                true => queue.waiters.pop_front().map(|w| w.tx),
                false => queue.waiters.front().map(|w| w.tx.clone()),
            }
        };
        if let Some(tx) = tx {
            let _ = tx.send(Ok(reply)).await;
        }
        Ok(())
    }

    /// Ends the session for everybody; the first reason stays.
    pub(super) async fn end(&self, error: SessionError) {
        let waiters = {
            let mut queue = self.queue();
            if queue.ended.is_some() {
                return;
            }
            queue.ended = Some(error.clone());
            std::mem::take(&mut queue.waiters)
        };
        self.over.cancel();
        for waiter in waiters {
            let _ = waiter.tx.try_send(Err(error.clone()));
        }
        let _ = self.events.send(Event::Ended(error)).await;
    }
}
