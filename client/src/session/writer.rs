//! The session's way out: requests become frames, frames become bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use devsync_protocol::frame::Encoder;
use devsync_protocol::message::Request;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, MutexGuard};

use super::router::{Answers, Call, Router};
use super::{SessionError, io_error};

/// Encoded bytes are handed to the link once there are this many.
const WRITE_AT: usize = 256 * 1024;

/// How long the end of the stream may take to be said.
const SHUT_WITHIN: Duration = Duration::from_millis(200);

pub(super) struct Writer {
    stream: Mutex<Stream>,
    flow: Arc<Flow>,
}

/// How the way out does, for who watches over the session.
#[derive(Default)]
struct Flow {
    sent: AtomicU64,
    /// Bytes wait until the link takes them.
    is_waiting: AtomicBool,
}

pub(super) struct Stream {
    /// `None` once the session was ended in order.
    link: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    encoder: Encoder,
    bytes: Vec<u8>,
    flow: Arc<Flow>,
}

impl Writer {
    pub(super) fn new(link: Box<dyn AsyncWrite + Send + Unpin>, level: Option<i32>) -> Self {
        let flow = Arc::<Flow>::default();
        let stream =
            Stream { link: Some(link), encoder: Encoder::new(level), bytes: Vec::new(), flow: flow.clone() };
        Self { stream: Mutex::new(stream), flow }
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().await
    }

    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Stream>> {
        self.stream.try_lock().ok()
    }

    pub(super) fn sent(&self) -> u64 {
        self.flow.sent.load(Ordering::Relaxed)
    }

    /// True while the link does not take what is to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.flow.is_waiting.load(Ordering::Relaxed)
    }

    /// Ends the stream; the agent then ends the session. What another task is in the middle of sending is cut, and a
    /// link that takes nothing any more is not waited for.
    pub(super) async fn shut(&self) {
        let shutting = async {
            if let Some(mut link) = self.lock().await.link.take() {
                let _ = link.shutdown().await;
            }
        };
        let _ = tokio::time::timeout(SHUT_WITHIN, shutting).await;
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
        if stream.bytes.len() >= WRITE_AT { self.router.unless_over(stream.write()).await } else { Ok(()) }
    }

    pub async fn flush(&mut self) -> Result<(), SessionError> {
        let stream = &mut *self.stream;
        stream.encoder.flush(&mut stream.bytes).map_err(|e| SessionError::Frame(Arc::new(e)))?;
        self.router.unless_over(stream.write_through()).await
    }
}

impl Stream {
    async fn write(&mut self) -> Result<(), SessionError> {
        let Some(link) = &mut self.link else { return Err(SessionError::Ended { said: None }) };
        let _waits = Waits::begin(&self.flow);
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            match link.write(rest).await.map_err(io_error)? {
                0 => return Err(SessionError::Ended { said: None }),
                written => {
                    rest = &rest[written..];
                    self.flow.sent.fetch_add(written as u64, Ordering::Relaxed);
                }
            }
        }
        self.bytes.clear();
        Ok(())
    }

    async fn write_through(&mut self) -> Result<(), SessionError> {
        self.write().await?;
        let Some(link) = &mut self.link else { return Ok(()) };
        let _waits = Waits::begin(&self.flow);
        link.flush().await.map_err(io_error)
    }
}

/// Says that the link is waited for, until it is dropped.
struct Waits<'a>(&'a Flow);

impl<'a> Waits<'a> {
    fn begin(flow: &'a Flow) -> Self {
        flow.is_waiting.store(true, Ordering::Relaxed);
        Self(flow)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.is_waiting.store(false, Ordering::Relaxed);
    }
}
