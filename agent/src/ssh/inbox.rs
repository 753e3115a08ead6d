//! What a client sends, on its way from russh's task to the session's thread: a queue with a blocking end. It takes
//! everything; the connection's `Throttle` keeps it short.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio_util::bytes::{Buf, Bytes};

use super::throttle::Throttle;

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Nothing more is taken: the end of input, or of the session.
    ended: bool,
}

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    throttle: Arc<Throttle>,
}

impl Inbox {
    pub(super) fn new(throttle: Arc<Throttle>) -> (Arc<Self>, InboxReader) {
        let inbox = Arc::new(Self { state: Mutex::default(), arrived: Condvar::new(), throttle });
        (Arc::clone(&inbox), InboxReader(inbox))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds data; after the end they are thrown away.
    pub(super) fn push(&self, data: Bytes) {
        let mut state = self.lock();
        if !state.ended {
            self.throttle.add(data.len());
            state.queue.push_back(data);
            self.arrived.notify_one();
        }
    }

    /// No more will come: the session reads what is queued, then the end.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }
}

/// The session's end.
#[derive(Debug)]
pub(super) struct InboxReader(Arc<Inbox>);

impl Read for InboxReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        while state.queue.is_empty() && !state.ended {
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut count = 0;
        while let (Some(front), Some(rest)) = (state.queue.front_mut(), buf.get_mut(count..)) {
            let part = front.len().min(rest.len());
            front.copy_to_slice(rest.get_mut(..part).unwrap_or_default());
            count += part;
            if !front.is_empty() {
                break;
            }
            state.queue.pop_front();
        }
        drop(state);
        self.0.throttle.remove(count);
        Ok(count)
    }
}

impl Drop for InboxReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        let left: usize = state.queue.drain(..).map(|data| data.len()).sum();
        drop(state);
        self.0.throttle.remove(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_is_read_before_the_end() {
        let (inbox, mut reader) = Inbox::new(Arc::default());
        for part in ["ab", "cde", "f"] {
            inbox.push(Bytes::from(part));
        }
        inbox.end();
        inbox.push(Bytes::from("late"));
        let mut first = [0; 4];
        assert_eq!(reader.read(&mut first).expect("read"), 4);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        assert_eq!((&first, rest.as_str()), (b"abcd", "ef"));
    }

    #[test]
    fn what_a_session_leaves_does_not_hold_the_connection() {
        let throttle = Arc::new(Throttle::default());
        let (inbox, reader) = Inbox::new(Arc::clone(&throttle));
        inbox.push(Bytes::from(vec![0; 16 << 20]));
        assert!(throttle.full());
        drop(reader);
        inbox.push(Bytes::from(vec![0; 16 << 20]));
        assert!(!throttle.full());
    }
}
