//! The session's way out: requests become frames, frames become bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devsync_protocol::frame::Encoder;
use devsync_protocol::message::Request;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard};

use super::router::{Answers, Call, Router};
use super::{SessionError, io_error};

/// Encoded bytes are handed to the link once there are this many.
const WRITE_AT: usize = 256 * 1024;

pub(super) struct Writer {
    stream: Mutex<Stream>,
    sent: Arc<AtomicU64>,
}

pub(super) struct Stream {
    /// `None` once the session was ended in order.
    link: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    encoder: Encoder,
    bytes: Vec<u8>,
    sent: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn new(link: Box<dyn AsyncWrite + Send + Unpin>, level: Option<i32>) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let stream =
            Stream { link: Some(link), encoder: Encoder::new(level), bytes: Vec::new(), sent: sent.clone() };
        Self { stream: Mutex::new(stream), sent }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().await
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Stream>> {
        self.stream.try_lock().ok()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the stream; the agent then ends the session. What another task is in the middle of sending is cut.
    pub(super) async fn shut(&self) {
        if let Ok(mut stream) = tokio::time::timeout(std::time::Duration::from_millis(200), self.lock()).await
            && let Some(mut link) = stream.link.take()
        {
            let _ = link.shutdown().await;
        }
    }
}

/// Exclusive use of the way out. Nothing is sent before [`Outgoing::flush`], unless it is much.
pub struct Outgoing<'a> {
    router: &'a Router,
    stream: MutexGuard<'a, Stream>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(router: &'a Router, stream: MutexGuard<'a, Stream>) -> Self {
        Self { router, stream }
    }

    /// Queues up for the answers of the request that is pushed next.
    pub fn expect(&mut self, call: Call) -> Answers {
        self.router.expect(call)
    }

    pub async fn push(&mut self, request: &Request) -> Result<(), SessionError> {
        let stream = &mut *self.stream;
        stream.encoder.push(request, &mut stream.bytes).map_err(|e| SessionError::Frame(Arc::new(e)))?;
        if stream.bytes.len() >= WRITE_AT { stream.write().await } else { Ok(()) }
    }

    pub async fn flush(&mut self) -> Result<(), SessionError> {
        let stream = &mut *self.stream;
        stream.encoder.flush(&mut stream.bytes).map_err(|e| SessionError::Frame(Arc::new(e)))?;
        stream.write().await?;
        match &mut stream.link {
            Some(link) => link.flush().await.map_err(io_error),
            None => Ok(()),
        }
    }
}

impl Stream {
    async fn write(&mut self) -> Result<(), SessionError> {
        let Some(link) = &mut self.link else { return Err(SessionError::Ended { said: None }) };
        link.write_all(&self.bytes).await.map_err(io_error)?;
        self.sent.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
        self.bytes.clear();
        Ok(())
    }
}
