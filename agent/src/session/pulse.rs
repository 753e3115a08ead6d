//! Signs of life during a request that takes long: a client need not tell an agent that works from one that is gone.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use devsync_protocol::message::Reply;

use super::wire::Outbox;

/// Pause between two signs, and before the first. The client gives up after 15 s of silence.
const EVERY: Duration = Duration::from_secs(4);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// A request is being served.
    is_working: bool,
    is_over: bool,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// A thread that sleeps without a timer while nothing is being done.
pub(super) struct Pulse {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Pulse {
    pub(super) fn start(outbox: Outbox) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("pulse".into()).spawn(move || beat(&own, &outbox))?;
        Ok(Self { shared, thread })
    }

    /// Carries out `work`, with signs of life where it takes long.
    pub(super) fn over<T>(&self, work: impl FnOnce() -> T) -> T {
        self.shared.change(|state| state.is_working = true);
        let done = work();
        self.shared.change(|state| state.is_working = false);
        done
    }

    pub(super) fn end(self) {
        self.shared.change(|state| state.is_over = true);
        if self.thread.join().is_err() {
            tracing::error!("the pulse panicked");
        }
    }
}

fn beat(shared: &Shared, outbox: &Outbox) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waiting = shared.changed.wait_while(state, |state| !state.is_working && !state.is_over);
        state = waiting.unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return;
        }
        let working = shared.changed.wait_timeout_while(state, EVERY, |s| s.is_working && !s.is_over);
        let (guard, waited) = working.unwrap_or_else(PoisonError::into_inner);
        if !waited.timed_out() {
            state = guard;
            continue;
        }
        drop(guard);
        // Where the client is gone, the session's own thread sees it.
        let _ = outbox.send(&Reply::Pong { nonce: 0 });
        state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Sink(Sender<usize>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_request_is_heard_of_before_its_answer() -> anyhow::Result<()> {
        let (tx, rx) = channel();
        let pulse = Pulse::start(Outbox::new(Box::new(Sink(tx))))?;
        let heard = pulse.over(|| rx.recv_timeout(3 * EVERY));
        assert!(heard.is_ok());
        // Ends although nothing is being served.
        pulse.end();
        Ok(())
    }
}
