//! One channel: waits for the subsystem, then carries bytes between russh's task and the session's thread, both
//! ways at once.

use std::io;
use std::sync::Arc;

use devsync_protocol::contract::SUBSYSTEM;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::outbox::outbox;
use super::throttle::Throttle;
use super::{Caller, Peer, SessionFn};

/// How sessions are ended.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// End of input: a session may still answer.
    pub input: CancellationToken,
    /// The client is gone: what was not sent yet is dropped.
    pub all: CancellationToken,
}

/// Serves a channel until it is closed and its session has ended; `place` is kept as long.
pub(super) async fn run(
    channel: Channel<Msg>,
    place: OwnedSemaphorePermit,
    peer: Peer,
    session: Arc<SessionFn>,
    throttle: Arc<Throttle>,
    stop: Stop,
) {
    let (mut incoming, outgoing) = channel.split();
    let asked = tokio::select! {
        asked = subsystem(&mut incoming) => asked,
        () = stop.input.cancelled() => false,
        () = stop.all.cancelled() => false,
    };
    if asked {
        tracing::info!(%peer, "session begins");
        let stop = Stop { input: stop.input.child_token(), all: stop.all.child_token() };
        let caller = Caller { peer: peer.clone(), stop: stop.clone() };
        match carry(incoming, &outgoing, caller, session, throttle, &stop).await {
            Ok(()) => tracing::info!(%peer, "session ended"),
            Err(error) => tracing::warn!(%peer, %error, "session could not be started"),
        }
    }
    let _ = outgoing.close().await;
    drop(place);
}

/// Whether the subsystem was asked for before the channel closed; other requests are answered by the handler.
async fn subsystem(incoming: &mut ChannelReadHalf) -> bool {
    while let Some(message) = incoming.wait().await {
        match message {
            ChannelMsg::RequestSubsystem { name, .. } if name == SUBSYSTEM => return true,
            ChannelMsg::Close => return false,
            _ => {}
        }
    }
    false
}

async fn carry(
    incoming: ChannelReadHalf,
    outgoing: &ChannelWriteHalf<Msg>,
    caller: Caller,
    session: Arc<SessionFn>,
    throttle: Arc<Throttle>,
    stop: &Stop,
) -> io::Result<()> {
    let (inbox, reader) = Inbox::new(Arc::clone(&throttle));
    let (writer, parts) = outbox(throttle);
    let (ended, end) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("session".into()).spawn(move || {
        session(Box::new(reader), Box::new(writer), caller);
        drop(ended);
    })?;
    let receiving = async {
        tokio::select! {
            () = receive(incoming, &inbox, stop) => {}
            // The session may end before its client does.
            _ = end => {}
        }
    };
    tokio::join!(receiving, send(outgoing, parts, stop));
    // Both of its ends are closed now; work that it has begun it may still finish.
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("a session panicked");
    }
    Ok(())
}

/// Moves what the client sends into the inbox, to the end of its input.
async fn receive(mut incoming: ChannelReadHalf, inbox: &Inbox, stop: &Stop) {
    let whole = async {
        loop {
            match incoming.wait().await {
                Some(ChannelMsg::Data { data }) => inbox.push(data),
                Some(ChannelMsg::Eof) => inbox.end(),
                None | Some(ChannelMsg::Close) => return stop.all.cancel(),
                Some(_) => {}
            }
        }
    };
    tokio::select! {
        () = whole => {}
        () = stop.all.cancelled() => {}
        () = async { stop.input.cancelled().await; inbox.end(); stop.all.cancelled().await } => {}
    }
    inbox.end();
}

/// Moves what the session answers to the client, then says that it was all.
async fn send(outgoing: &ChannelWriteHalf<Msg>, mut parts: Receiver<Bytes>, stop: &Stop) {
    let whole = async {
        while let Some(part) = parts.recv().await {
            outgoing.data_bytes(part).await?;
        }
        // Before the end: a client that has seen both ends closes at once, and we stop listening.
        outgoing.exit_status(0).await?;
        outgoing.eof().await
    };
    tokio::select! {
        sent = whole => if sent.is_err() { stop.all.cancel() },
        () = stop.all.cancelled() => {}
    }
}
