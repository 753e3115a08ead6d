//! What a client sends, on its way from russh's task to the session's thread: a bounded queue with an async end and
//! a blocking one.
//!
//! russh opens its window when data arrive, not when they are read, so holding data back stops the whole connection,
//! window adjustments for our own answers included. While the session itself waits to write, the bound is therefore
//! lifted up to `HARD`: otherwise two sides that both send a lot would wait for each other for ever.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::bytes::{Buf, Bytes};

/// Bytes that wait for the session, usually.
const SOFT: usize = 4 * 1024 * 1024;
/// Bytes that wait while the session cannot write; a client that sends more without reading is cut off.
const HARD: usize = 48 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The session has ended, or was told that nothing more will come.
    Gone,
    /// The client sends without reading.
    Flood,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    gone: bool,
    /// The session waits to write.
    writing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    room: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds data, once there is room.
    pub(super) async fn push(&self, data: Bytes) -> Result<(), Refused> {
        loop {
            {
                let mut state = self.lock();
                if state.gone || state.ended {
                    return Err(Refused::Gone);
                }
                if state.writing && state.bytes >= HARD {
                    return Err(Refused::Flood);
                }
                if state.bytes < SOFT || state.writing {
                    state.bytes += data.len();
                    state.queue.push_back(data);
                    self.arrived.notify_one();
                    return Ok(());
                }
            }
            self.room.notified().await;
        }
    }

    /// No more will come: the session reads what is queued, then the end.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Says whether the session waits to write.
    pub(super) fn set_writing(&self, writing: bool) {
        self.lock().writing = writing;
        self.room.notify_one();
    }
}

/// The session's end; its drop tells the other side.
#[derive(Debug)]
pub(super) struct InboxReader(pub(super) Arc<Inbox>);

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
        state.bytes -= count;
        if state.bytes < SOFT / 2 {
            self.0.room.notify_one();
        }
        Ok(count)
    }
}

impl Drop for InboxReader {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        state.queue.clear();
        drop(state);
        self.0.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (Arc<Inbox>, InboxReader) {
        let inbox = Arc::new(Inbox::default());
        (Arc::clone(&inbox), InboxReader(inbox))
    }

    #[tokio::test]
    async fn what_was_queued_is_read_before_the_end() {
        let (inbox, mut reader) = inbox();
        for part in ["ab", "cde", "f"] {
            inbox.push(Bytes::from(part)).await.expect("room");
        }
        inbox.end();
        let mut first = [0; 4];
        assert_eq!(reader.read(&mut first).expect("read"), 4);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        assert_eq!((&first, rest.as_str()), (b"abcd", "ef"));
    }

    #[tokio::test]
    async fn a_session_that_is_gone_refuses_data() {
        let (inbox, reader) = inbox();
        drop(reader);
        assert_eq!(inbox.push(Bytes::from_static(b"x")).await, Err(Refused::Gone));
    }

    #[tokio::test]
    async fn a_full_queue_waits_but_not_while_the_session_writes() {
        let (inbox, _reader) = inbox();
        inbox.push(Bytes::from(vec![0; SOFT])).await.expect("room");
        let waiting = tokio::spawn({
            let inbox = Arc::clone(&inbox);
            async move { inbox.push(Bytes::from_static(b"x")).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        inbox.set_writing(true);
        assert_eq!(waiting.await.expect("joined"), Ok(()));
        inbox.push(Bytes::from(vec![0; HARD])).await.expect("room while writing");
        assert_eq!(inbox.push(Bytes::from_static(b"x")).await, Err(Refused::Flood));
    }
}
