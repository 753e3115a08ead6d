//! Which session of this agent holds which target, so that another one may end it.

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devsync_protocol::message::{Refusal, Reply};
use tokio_util::sync::CancellationToken;

use super::wire::Outbox;

/// A client that is gone cannot be told: after this it is ended all the same.
const FAREWELL: Duration = Duration::from_secs(1);
/// From the end of its input a session has this long to finish what it has begun.
const FINISH: Duration = Duration::from_secs(3);

/// Ends a session from outside.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// Its input is at its end; it may still answer.
    pub input: CancellationToken,
    /// Its client is gone.
    pub all: CancellationToken,
}

struct Holder {
    number: u64,
    outbox: Outbox,
    cut: Cut,
}

#[derive(Default)]
struct State {
    count: u64,
    holders: HashMap<String, Holder>,
}

/// The sessions that hold a target, by the name of its lock.
#[derive(Default)]
pub struct Holders(Mutex<State>);

impl std::fmt::Debug for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().holders.keys()).finish()
    }
}

/// A session's entry; dropped with the session.
pub(super) struct Held {
    holders: Arc<Holders>,
    target: String,
    number: u64,
}

impl Holders {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by the one who has the target's lock.
    pub(super) fn enter(self: &Arc<Self>, target: &str, outbox: Outbox, cut: Cut) -> Held {
        let mut state = self.lock();
        state.count += 1;
        let number = state.count;
        state.holders.insert(target.to_owned(), Holder { number, outbox, cut });
        Held { holders: Arc::clone(self), target: target.to_owned(), number }
    }

    /// Tells the session that holds `target` that `by` takes over, and ends it. False where no session of this agent
    /// holds it. It does not wait for the end: the target's lock tells.
    pub(super) fn end(&self, target: &str, by: &str) -> bool {
        let found = self.lock().holders.get(target).map(|h| (h.outbox.clone(), h.cut.clone()));
        let Some((outbox, cut)) = found else { return false };
        let refusal = Refusal {
            what: "this attach".to_owned(),
            cause: format!("{by} has taken over"),
            hint: Some("talk to each other; attach again with --take-over if it is yours".to_owned()),
            fatal: true,
        };
        let ended = std::thread::Builder::new().name("take-over".into()).spawn(move || {
            let (told, heard) = channel();
            let telling = std::thread::Builder::new().name("farewell".into()).spawn({
                let outbox = outbox.clone();
                move || {
                    let _ = told.send(outbox.send(&Reply::Refused(refusal)));
                }
            });
            let _ = heard.recv_timeout(FAREWELL);
            cut.input.cancel();
            std::thread::sleep(FINISH);
            // Whoever still writes to a client that does not read is let go by this.
            cut.all.cancel();
            drop(telling.map(std::thread::JoinHandle::join));
        });
        ended.inspect_err(|error| tracing::error!(%error, "nobody can be ended")).is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.holders.lock();
        if state.holders.get(&self.target).is_some_and(|holder| holder.number == self.number) {
            state.holders.remove(&self.target);
        }
    }
}
