//! Bytes between a channel and a stream of the pod, each way on its own: nothing that is not read holds back the
//! other way. What a client sends is counted by the connection's `Throttle` until it is written.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use russh::server::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::throttle::Throttle;

/// One read.
const PART: usize = 64 * 1024;

/// What a client says beside its data.
#[derive(Debug)]
pub(super) enum Control {
    /// Columns, rows, and both in pixels.
    Resize([u32; 4]),
    Signal(Sig),
}

/// Data that are counted until they are dropped.
struct Held {
    data: Bytes,
    throttle: Arc<Throttle>,
}

impl Held {
    fn new(data: Bytes, throttle: &Arc<Throttle>) -> Self {
        throttle.add(data.len());
        Self { data, throttle: Arc::clone(throttle) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.throttle.remove(self.data.len());
    }
}

/// Writes what the client sends to `sink`, to the end of its data, and closes it; `drained` is cancelled then.
/// Returns when the client has closed the channel and what it sent before is written or cannot be.
pub(super) async fn inward(
    mut incoming: ChannelReadHalf,
    mut sink: impl AsyncWrite + Unpin,
    throttle: &Arc<Throttle>,
    drained: &CancellationToken,
    mut control: impl FnMut(Control),
) {
    let (feed, mut queue) = unbounded_channel::<Held>();
    let reading = async move {
        let mut feed = Some(feed);
        loop {
            match incoming.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    // Fails where nobody reads any more: dropped, and the client goes on.
                    drop(feed.as_ref().map(|feed| feed.send(Held::new(data, throttle))));
                }
                Some(ChannelMsg::Eof) => feed = None,
                Some(ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height }) => {
                    control(Control::Resize([col_width, row_height, pix_width, pix_height]));
                }
                Some(ChannelMsg::Signal { signal }) => control(Control::Signal(signal)),
                None | Some(ChannelMsg::Close) => return,
                Some(_) => {}
            }
        }
    };
    let writing = async move {
        while let Some(held) = queue.recv().await {
            if sink.write_all(&held.data).await.is_err() {
                break;
            }
        }
        drop(queue);
        // A peer that is gone needs no end.
        let _ = sink.shutdown().await;
        drained.cancel();
    };
    tokio::join!(reading, writing);
}

/// Sends what `source` gives to the client, to its end. An error is the client's end.
pub(super) async fn outward(
    mut source: impl AsyncRead + Unpin,
    outgoing: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
    throttle: &Throttle,
) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PART);
        // A terminal without a program says EIO for the end; any other error is one too.
        match source.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(()),
            Ok(_) => {}
        }
        let part = buffer.split().freeze();
        let sent = async {
            match stream {
                None => outgoing.data_bytes(part).await,
                Some(stream) => outgoing.extended_data_bytes(stream, part).await,
            }
        };
        waiting(throttle, sent).await?;
    }
}

/// Awaits a send; while it has to wait the throttle knows, since the client's permission may be among what was not
/// read yet.
async fn waiting<T>(throttle: &Throttle, send: impl Future<Output = T>) -> T {
    struct Waits<'t>(&'t Throttle);
    impl Drop for Waits<'_> {
        fn drop(&mut self) {
            self.0.end_write();
        }
    }
    let mut send = pin!(send);
    if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(send.as_mut().poll(cx))).await {
        return sent;
    }
    throttle.begin_write();
    let _waits = Waits(throttle);
    send.await
}
