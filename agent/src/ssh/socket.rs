//! A connection's stream, which goes on reading while it waits to write.
//!
//! russh writes a whole batch before it reads again, and so does a russh client: with both sockets' buffers full,
//! both would wait for ever. What arrives while a write waits is therefore taken into memory, up to a bound that a
//! peer's window keeps it below.

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep};

use super::throttle::Throttle;

/// Largest amount read ahead: more than a channel's window and what is sent beside it.
const AHEAD: usize = 16 * 1024 * 1024;
/// What passes at the end of a pause: about a narrow window, which has a window adjustment behind it.
const ALLOWANCE: usize = 256 * 1024;
/// The first read from the kernel: who has not logged in sends little, and there may be many of them.
const FIRST_STEP: usize = 4 * 1024;
/// The largest read.
const STEP: usize = 128 * 1024;
/// A peer that acknowledges nothing, or keeps its window shut, for this long is gone: russh's own timers do not run
/// while it writes.
const STALL: Duration = Duration::from_secs(60);

/// What a connection runs over.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    /// One end of a pair, for a client at the other.
    Unix(UnixStream),
}

impl Stream {
    fn prepare(&self) -> io::Result<()> {
        if let Self::Tcp(tcp) = self {
            tcp.set_nodelay(true)?;
            let stall = u32::try_from(STALL.as_millis()).unwrap_or(u32::MAX);
            setsockopt(tcp, sockopt::TcpUserTimeout, &stall)?;
        }
        Ok(())
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buf),
            Self::Unix(unix) => unix.try_read(buf),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx),
            Self::Unix(unix) => unix.poll_write_ready(cx),
        }
    }

    fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(buf),
            Self::Unix(unix) => unix.try_write(buf),
        }
    }

    fn shutdown(&self, how: Shutdown) -> nix::Result<()> {
        shutdown(self.as_raw_fd(), how)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }
}

/// Ends a connection from outside, whatever its task is waiting for.
#[derive(Debug, Clone)]
pub(super) struct Cutter {
    stream: Arc<Stream>,
    /// russh's farewell is not sent.
    hushed: Arc<AtomicBool>,
}

impl Cutter {
    pub(super) fn cut(&self) {
        // ENOTCONN: the peer was quicker.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Lets russh see the end, while the peer sees nothing: what it sends is not read, and it gets no answer.
    pub(super) fn hush(&self) {
        self.hushed.store(true, SeqCst);
        // What the peer sends from now on stays in the kernel, on this container's bill: let it be little.
        if let Stream::Tcp(tcp) = &*self.stream {
            let _ = setsockopt(tcp, sockopt::RcvBuf, &FIRST_STEP);
        }
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<Stream>,
    hushed: Arc<AtomicBool>,
    ahead: Vec<u8>,
    /// The next read.
    step: usize,
    /// Where the unread part of `ahead` begins.
    start: usize,
    throttle: Arc<Throttle>,
    /// The end of a pause, and the throttle's progress at its begin.
    pause: Option<(Pin<Box<Sleep>>, u64)>,
    /// Bytes that pass before the next pause.
    allowance: usize,
}

impl Socket {
    pub(super) fn new(stream: Stream, throttle: Arc<Throttle>) -> io::Result<(Self, Cutter)> {
        stream.prepare()?;
        let stream = Arc::new(stream);
        let cutter = Cutter { stream: Arc::clone(&stream), hushed: Arc::default() };
        let hushed = Arc::clone(&cutter.hushed);
        let (ahead, step) = (Vec::new(), FIRST_STEP);
        Ok((Self { stream, hushed, ahead, step, start: 0, throttle, pause: None, allowance: 0 }, cutter))
    }

    /// Appends what the kernel has to `ahead`, at most up to `limit` bytes of it; the number of bytes that came.
    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let len = self.ahead.len();
            let step = limit.min(self.step);
            self.ahead.resize(len + step, 0);
            let read = self.stream.try_read(self.ahead.get_mut(len..).unwrap_or_default());
            self.ahead.truncate(len + read.as_ref().map_or(0, |count| *count));
            if read.as_ref().is_ok_and(|count| *count == step) {
                self.step = STEP.min(step * 4).max(self.step);
            }
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Empties the kernel's buffer while a write waits; an error or the end is found again by the next read.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        loop {
            let room = AHEAD.saturating_sub(self.ahead.len() - self.start);
            if room == 0 || !matches!(self.poll_fill(cx, room), Poll::Ready(Ok(1..))) {
                return;
            }
        }
    }

    /// Waits while the sessions have enough to read.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.throttle.full() && self.allowance == 0 {
            let (limit, progress) = self.throttle.pause(cx.waker());
            // It may have had its reason to wake just before it knew whom.
            if !self.throttle.full() {
                break;
            }
            let end = Instant::now() + limit;
            let (timer, began) = self.pause.get_or_insert_with(|| (Box::pin(sleep(limit)), progress));
            // A session that has begun to wait makes the pause shorter.
            if timer.deadline() > end {
                timer.as_mut().reset(end);
                *began = progress;
            }
            ready!(timer.as_mut().poll(cx));
            let passes = self.throttle.lets_through(*began);
            self.pause = None;
            self.allowance = if passes { ALLOWANCE } else { 0 };
        }
        self.pause = None;
        Poll::Ready(())
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let waiting = self.ahead.get(self.start..).unwrap_or_default();
        let count = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.get(..count).unwrap_or_default());
        self.start += count;
        self.allowance = self.allowance.saturating_sub(count);
        if self.start == self.ahead.len() {
            self.start = 0;
            self.ahead.clear();
            // A burst's memory is given back.
            self.ahead.shrink_to(2 * STEP);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        ready!(socket.poll_pause(cx));
        if socket.ahead.is_empty() {
            ready!(socket.poll_fill(cx, STEP))?;
        }
        socket.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        loop {
            match socket.stream.poll_write_ready(cx)? {
                Poll::Pending => {
                    socket.read_ahead(cx);
                    return Poll::Pending;
                }
                Poll::Ready(()) => match socket.stream.try_write(buf) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                },
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hushed.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) | Err(nix::errno::Errno::ENOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
