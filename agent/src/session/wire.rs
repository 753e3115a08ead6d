//! The two ends of a session's byte stream: requests in, replies out.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use devsync_protocol::frame::{Decoder, Encoder, FrameError};
use devsync_protocol::handshake::{self, HELLO_LEN, HandshakeError};
use devsync_protocol::message::{Reply, Request};
use thiserror::Error;

/// Bytes read at once.
const READ: usize = 256 * 1024;

#[derive(Debug, Error)]
pub enum WireError {
    #[error("the connection to the client failed")]
    Io(#[from] io::Error),
    #[error("the client sent something that is not a request")]
    Frame(#[from] FrameError),
    #[error("the client could not be greeted")]
    Handshake(#[from] HandshakeError),
}

/// Exchanges hellos; ours goes out first, so that a client of another version can say so too.
pub(crate) fn greet(reader: &mut impl Read, writer: &mut impl Write) -> Result<(), WireError> {
    writer.write_all(&handshake::hello())?;
    writer.flush()?;
    let mut theirs = [0; HELLO_LEN];
    reader.read_exact(&mut theirs)?;
    Ok(handshake::check(&theirs, "client")?)
}

/// Requests, one at a time.
pub(crate) struct Inbox<R> {
    reader: R,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<R: Read> Inbox<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, decoder: Decoder::new(), buffer: vec![0; READ] }
    }

    /// The next request; `None` once the client has closed.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, WireError> {
        loop {
            if let Some(request) = self.decoder.next()? {
                return Ok(Some(request));
            }
            match self.reader.read(&mut self.buffer) {
                Ok(0) if self.decoder.buffered() == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => self.decoder.feed(&self.buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Replies; shared by the session's thread and those that restart and watch the app.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<Writer>>);

struct Writer {
    encoder: Encoder,
    out: Vec<u8>,
    writer: Box<dyn Write + Send>,
}

impl Outbox {
    pub(crate) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Writer { encoder: Encoder::new(None), out: Vec::new(), writer })))
    }

    /// Sends one reply at once.
    pub(crate) fn send(&self, reply: &Reply) -> Result<(), WireError> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { encoder, out, writer } = &mut *guard;
        encoder.push(reply, out)?;
        encoder.flush(out)?;
        let sent = writer.write_all(out).and_then(|()| writer.flush());
        out.clear();
        Ok(sent?)
    }
}
