//! A byte stream to a port in a pod, through the API server's port-forward.
//!
//! The WebSocket protocol `v4.channel.k8s.io`: each message begins with a channel's number, 0 for data and 1 for the
//! kubelet's words about an error; the first message on each is the port's number. kube's own Portforwarder sends a
//! message for every 4 KiB, and a client that has sent everything gets no more answers from it; so this is our own.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::core::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Cluster;
use crate::error::{CommandError, Kind};
use crate::report::plain_line;
use crate::transport::Link;

/// Most data in one message, in bytes: a packet of SSH.
const MESSAGE: usize = 64 * 1024;
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Of the kubelet's words, in characters.
const LONGEST_WORDS: usize = 500;

/// One forwarded connection.
pub struct Forward {
    pub stream: PortStream,
    pub said: Said,
}

/// What the kubelet said went wrong: "connection refused", "lost connection to pod".
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<Option<String>>>);

impl Said {
    /// Complete once the stream has ended.
    pub fn error(&self) -> Option<String> {
        self.0.lock().ok().and_then(|said| said.clone())
    }

    fn say(&self, words: &[u8]) {
        let words = String::from_utf8_lossy(words);
        let words = plain_line(words.trim()).chars().take(LONGEST_WORDS).collect();
        if let Ok(mut said) = self.0.lock() {
            said.get_or_insert(words);
        }
    }
}

/// Opens a connection to `port` in the pod.
pub async fn forward(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Forward, CommandError> {
    let doing = format!("port {port} of pod/{pod} cannot be forwarded");
    let request = Request::new(Pod::url_path(&(), Some(namespace))).portforward(pod, &[port]);
    let request = request.map_err(|e| CommandError::new(doing.clone()).kind(Kind::Cluster).cause(e))?;
    let connection = cluster.ask(&doing, cluster.client.connect(request)).await?;
    let (sink, stream) = connection.into_stream().split();
    let out = sink.sink_map_err(failed).with(|message: Vec<u8>| ready(Ok::<_, io::Error>(message.into())));
    let messages = stream.map(|message| match message {
        Ok(message) if message.is_close() => Ok(None),
        Ok(message) if message.is_binary() => Ok(Some(message.into_data().to_vec())),
        Ok(_) => Ok(Some(Vec::new())),
        Err(error) => Err(failed(error)),
    });
    let said = Said::default();
    let stream = PortStream {
        out: Box::pin(out),
        messages: Box::pin(messages),
        message: Vec::new(),
        at: 0,
        begun: [false; 2],
        ended: false,
        port,
        said: said.clone(),
    };
    Ok(Forward { stream, said })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

type Out = Pin<Box<dyn Sink<Vec<u8>, Error = io::Error> + Send>>;
/// `None` is the other end's farewell.
type Messages = Pin<Box<dyn Stream<Item = io::Result<Option<Vec<u8>>>> + Send>>;

/// The data channel of a port-forward.
pub struct PortStream {
    out: Out,
    messages: Messages,
    /// The message that is being read, and how far it was.
    message: Vec<u8>,
    at: usize,
    /// Which channels have named their port.
    begun: [bool; 2],
    ended: bool,
    port: u16,
    said: Said,
}

impl PortStream {
    fn take(&mut self, message: Vec<u8>) -> io::Result<()> {
        let Some((&channel, body)) = message.split_first() else { return Ok(()) };
        let unexpected =
            || io::Error::new(io::ErrorKind::InvalidData, "the port-forward sent what cannot be read");
        let begun = self.begun.get_mut(usize::from(channel)).ok_or_else(unexpected)?;
        if !*begun {
            *begun = true;
            return if body == self.port.to_le_bytes() { Ok(()) } else { Err(unexpected()) };
        }
        match channel {
            DATA => (self.message, self.at) = (message, 1),
            ERROR if !body.is_empty() => {
                self.said.say(body);
                self.ended = true;
            }
            _ => {}
        }
        Ok(())
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            let rest = this.message.get(this.at..).unwrap_or_default();
            if !rest.is_empty() {
                let len = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..len]);
                this.at += len;
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(this.messages.as_mut().poll_next(cx)) {
                Some(Ok(Some(message))) => this.take(message)?,
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Err(error));
                }
                Some(Ok(None)) | None => this.ended = true,
            }
        }
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.out.as_mut().poll_ready(cx))?;
        let len = data.len().min(MESSAGE);
        let mut message = Vec::with_capacity(len + 1);
        message.push(DATA);
        message.extend_from_slice(&data[..len]);
        self.out.as_mut().start_send(message)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.as_mut().poll_close(cx)
    }
}

/// The link of a session through a pod: the SSH connection, and the port-forward below it.
pub(super) struct PodLink {
    pub(super) ssh: Box<dyn Link>,
    pub(super) said: Said,
    /// `pod/NAME`, for the words about its end.
    pub(super) pod: String,
}

impl Link for PodLink {
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = Option<String>> + Send>> {
        Box::pin(async move {
            let Self { ssh, said, pod } = *self;
            let words = ssh.close().await;
            words.or_else(|| said.error().map(|error| format!("the port-forward to {pod} ended: {error}")))
        })
    }
}
