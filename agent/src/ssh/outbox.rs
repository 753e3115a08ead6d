//! What a session answers, on its way from its thread to russh's task: a bounded queue with a blocking end and an
//! async one. Nothing is held back: a write is on its way when it returns, so `flush` has nothing to do.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio_util::bytes::Bytes;

use super::throttle::Throttle;

/// Longest part that one write takes.
const PART: usize = 256 * 1024;
/// Parts that wait for the network.
const PARTS: usize = 8;

/// The session's end; its drop is the end of the answers.
#[derive(Debug)]
pub(super) struct OutboxWriter {
    parts: Sender<Bytes>,
    throttle: Arc<Throttle>,
}

/// Makes the queue; `throttle` is told while the writer waits.
pub(super) fn outbox(throttle: Arc<Throttle>) -> (OutboxWriter, Receiver<Bytes>) {
    let (parts, receiver) = channel(PARTS);
    (OutboxWriter { parts, throttle }, receiver)
}

impl OutboxWriter {
    /// Sends bytes as they are, without a copy.
    pub(super) fn send(&self, bytes: Bytes) -> io::Result<()> {
        match self.parts.try_send(bytes) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(closed()),
            Err(TrySendError::Full(bytes)) => {
                self.throttle.begin_write();
                let sent = self.parts.blocking_send(bytes);
                self.throttle.end_write();
                sent.map_err(|_| closed())
            }
        }
    }
}

impl Write for OutboxWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let part = buf.get(..PART).unwrap_or(buf);
        if part.is_empty() {
            return Ok(0);
        }
        self.send(Bytes::copy_from_slice(part)).map(|()| part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn closed() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the client has closed its channel")
}
