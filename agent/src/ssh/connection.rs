//! One connection, from accept to its end: its deadline, its place in the lobby, its channels, its shutdown.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::server::{Handle, RunningSession};
use russh::{ChannelId, ChannelOpenFailure, Disconnect};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::{self, Client, Stop};
use super::forward::{Forwards, Listeners};
use super::handler::{ConnectionHandler, Event};
use super::lobby::{Stage, Ticket};
use super::seats::Seat;
use super::socket::{Cutter, Socket, Stream};
use super::throttle::Throttle;
use super::{Peer, Shared};
use crate::shell;
use crate::world::World;

/// For saying good-bye to a client whose sessions have ended.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long one that had to go does not learn of it: at least this, and up to four seconds more.
const LINGER: Duration = Duration::from_secs(1);

type Running = RunningSession<ConnectionHandler>;

struct Connection {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Until the login.
    ticket: Option<Ticket>,
    login: Option<(Peer, OwnedSemaphorePermit)>,
    /// Where the client named its session.
    seat: Option<Seat>,
    channels: TaskTracker,
    handle: Handle,
    forwards: Arc<Semaphore>,
    listeners: Listeners,
    throttle: Arc<Throttle>,
    stop: Stop,
    /// See [`Client::beside`].
    beside: Arc<Mutex<HashSet<ChannelId>>>,
}

/// Serves one accepted connection; returns when all its tasks and threads are gone.
pub(super) async fn run(
    stream: Stream,
    address: SocketAddr,
    ticket: Ticket,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let deadline = Instant::now() + shared.limits.login_grace;
    let throttle = Arc::new(Throttle::default());
    let (socket, cutter) = match Socket::new(stream, Arc::clone(&throttle)) {
        Ok(socket) => socket,
        Err(error) => return log_setup(address, &error),
    };
    let (events, receiver) = channel(8);
    let handler = ConnectionHandler::new(address, Arc::clone(&shared), Arc::clone(&throttle), events);
    let running = tokio::select! {
        // First: in a flood most are turned away before their turn, and cost nothing more.
        biased;
        () = ticket.evicted() => return linger(&cutter, address, &shared, &shutdown).await,
        () = shutdown.cancelled() => return,
        running = russh::server::run_stream(Arc::clone(&shared.russh), socket, handler) => running,
        () = sleep_until(deadline) => return log_end(address, "no identification came in time"),
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return log_setup(address, &error),
    };
    ticket.advance(Stage::Greeted);
    let connection = Connection {
        address,
        handle: running.handle(),
        forwards: Arc::new(Semaphore::new(shared.limits.forwards)),
        listeners: Listeners::default(),
        shared,
        ticket: Some(ticket),
        login: None,
        seat: None,
        channels: TaskTracker::new(),
        throttle,
        stop: Stop::default(),
        beside: Arc::default(),
    };
    connection.serve(running, receiver, cutter, deadline, &shutdown).await;
}

impl Connection {
    async fn serve(
        mut self,
        mut running: Running,
        mut events: Receiver<Event>,
        cutter: Cutter,
        deadline: Instant,
        shutdown: &CancellationToken,
    ) {
        let why = loop {
            tokio::select! {
                ended = &mut running => {
                    return self.finish(ended.err()).await;
                }
                Some(event) = events.recv() => self.handle(event).await,
                () = sleep_until(deadline), if self.ticket.is_some() => break "no login in time",
                () = evicted(self.ticket.as_ref()) => {
                    // Who waits for a turn after a bad key learns by this that there is none.
                    drop(events);
                    return self.make_way(&mut running, &cutter, shutdown).await;
                }
                () = shutdown.cancelled() => break "shutdown",
                () = taken(self.seat.as_ref()) => {
                    log_end(self.address, "its client came again");
                    drop(events);
                    // Nobody is there to be told.
                    self.stop.all.cancel();
                    cutter.cut();
                    let _ = timeout(self.shared.limits.drain, &mut running).await;
                    return self.finish(None).await;
                }
            }
        };
        log_end(self.address, why);
        drop(events);
        self.drain(&mut running, &cutter).await;
        self.finish(None).await;
    }

    /// Ends russh's part for a newcomer.
    async fn make_way(mut self, running: &mut Running, cutter: &Cutter, shutdown: &CancellationToken) {
        self.ticket = None;
        cutter.hush();
        let (address, shared) = (self.address, Arc::clone(&self.shared));
        if timeout(FAREWELL, &mut *running).await.is_err() {
            cutter.cut();
            let _ = timeout(shared.limits.drain, running).await;
        }
        self.finish(None).await;
        linger(cutter, address, &shared, shutdown).await;
    }

    async fn handle(&mut self, event: Event) {
        match (event, &self.login) {
            (Event::Encrypted, _) => {
                if let Some(ticket) = &self.ticket {
                    ticket.advance(Stage::Encrypted);
                }
            }
            (Event::LoggedIn(peer, place), _) => {
                self.ticket = None;
                self.login = Some((peer, place));
            }
            (Event::Opened(channel, place), Some((peer, _))) => {
                let client = self.client(peer);
                self.channels.spawn(channel::run(channel, place, client));
            }
            (Event::Named { session, answer }, Some((peer, _))) => {
                if self.seat.is_none() {
                    self.seat = Some(self.shared.seats.take(&peer.key, &session).await);
                }
                let _ = answer.send(());
            }
            (Event::Beside { channel, answer }, Some((peer, _))) => {
                let (target, beside) = (self.shared.target(peer), Arc::clone(&self.beside));
                let most = self.shared.limits.channels;
                let look = move || World::open(&target).is_ok_and(|world| shell::cannot_enter(&world));
                self.channels.spawn(async move {
                    let is_closed = tokio::task::spawn_blocking(look).await.unwrap_or(false);
                    let mut beside = beside.lock().unwrap_or_else(PoisonError::into_inner);
                    let _ = answer.send(is_closed && beside.len() < most && beside.insert(channel));
                });
            }
            (Event::Dial { channel, reply, to }, Some((peer, _))) => {
                let forwards = self.forwards(peer);
                match Arc::clone(&self.forwards).try_acquire_owned() {
                    Ok(place) => drop(self.channels.spawn(forwards.dial(channel, reply, to, place))),
                    Err(_) => {
                        tracing::warn!(%peer, reason = "too many forwards", "channel refused");
                        // Not here: what takes it may just be waiting for this task.
                        self.channels.spawn(async move {
                            reply.reject(ChannelOpenFailure::ResourceShortage).await;
                        });
                    }
                }
            }
            (Event::Listen { what, answer }, Some((peer, _))) => {
                let forwards = self.forwards(peer);
                let port = forwards.listen(&what, &mut self.listeners, self.shared.limits.listeners).await;
                // A connection that is gone needs no answer.
                let _ = answer.send(port);
            }
            (Event::Cancel { what, answer }, Some(_)) => {
                let _ = answer.send(self.listeners.cancel(&what));
            }
            // russh opens channels only after a login: dropped, which closes and refuses them.
            (
                Event::Opened(..)
                | Event::Named { .. }
                | Event::Beside { .. }
                | Event::Dial { .. }
                | Event::Listen { .. }
                | Event::Cancel { .. },
                None,
            ) => {}
        }
    }

    fn client(&self, peer: &Peer) -> Client {
        Client {
            peer: peer.clone(),
            target: self.shared.target(peer),
            session: Arc::clone(&self.shared.session),
            throttle: Arc::clone(&self.throttle),
            stop: self.stop.clone(),
            handle: self.handle.clone(),
            beside: Arc::clone(&self.beside),
        }
    }

    fn forwards(&self, peer: &Peer) -> Forwards {
        Forwards {
            peer: peer.clone(),
            handle: self.handle.clone(),
            throttle: Arc::clone(&self.throttle),
            target: self.shared.target(peer),
            open: self.shared.open_forwards,
            places: Arc::clone(&self.forwards),
            tasks: self.channels.clone(),
            stop: self.stop.input.clone(),
        }
    }

    /// Lets the sessions end and the client leave, says good-bye to one that stays, and cuts what is left.
    async fn drain(&mut self, running: &mut Running, cutter: &Cutter) {
        let limit = self.shared.limits.drain;
        let begin = Instant::now();
        // One without a channel may still be passing on the answer of its last.
        let grace = if self.channels.is_empty() { FAREWELL } else { limit };
        self.stop.input.cancel();
        self.channels.close();
        let handle = running.handle();
        // Without a login nobody is owed time.
        if self.login.is_some() && timeout(limit, self.channels.wait()).await.is_ok() {
            // A client that reads a disconnect drops what it has not passed on yet, so it comes last: a client whose
            // only channel is closed passes all on and leaves by itself. russh does not tell when the client closes
            // a channel that we have closed, so the connection's end is what shows it.
            let leaves = (begin + grace).max(Instant::now() + FAREWELL);
            if timeout_at(leaves, &mut *running).await.is_ok() {
                return;
            }
            let farewell = handle.disconnect(Disconnect::ByApplication, "the agent ends".into(), "en".into());
            let _ = timeout(FAREWELL, farewell).await;
            // What has ended must not be waited for again.
            if timeout(FAREWELL, &mut *running).await.is_ok() {
                return;
            }
        }
        cutter.cut();
        let _ = timeout(limit, &mut *running).await;
    }

    /// Ends the sessions of a connection that is gone, and waits for them.
    async fn finish(self, error: Option<russh::Error>) {
        self.stop.input.cancel();
        self.stop.all.cancel();
        self.channels.close();
        if timeout(self.shared.limits.drain, self.channels.wait()).await.is_err() {
            tracing::warn!(peer = %self.address, "a session still works after its client is gone");
            self.channels.wait().await;
        }
        if let Some(grant) = self.login.as_ref().and_then(|(peer, _)| peer.grant.as_ref()) {
            self.shared.registered.used(grant, std::time::Instant::now());
        }
        match (&self.login, error) {
            (Some((peer, _)), None) => tracing::info!(%peer, "logout"),
            (Some((peer, _)), Some(error)) => tracing::info!(%peer, %error, "logout"),
            (None, Some(error)) => log_setup(self.address, &error),
            (None, None) => {}
        }
    }
}

async fn evicted(ticket: Option<&Ticket>) {
    match ticket {
        Some(ticket) => ticket.evicted().await,
        None => std::future::pending().await,
    }
}

/// Keeps the socket of one that had to go open for a while: a client that comes again as soon as it is closed would
/// else drive out the others as fast as it can connect.
async fn linger(cutter: &Cutter, address: SocketAddr, shared: &Shared, shutdown: &CancellationToken) {
    // The lobby says how many there are.
    tracing::debug!(peer = %address, "closed for a newcomer");
    cutter.hush();
    if let Ok(_place) = shared.lingering.try_acquire() {
        // They came at once, and must not all come again at once.
        let spread = address.port().wrapping_mul(40_503) % 4096;
        let _ = timeout(LINGER + Duration::from_millis(spread.into()), shutdown.cancelled()).await;
    }
    cutter.cut();
}

async fn taken(seat: Option<&Seat>) {
    match seat {
        Some(seat) => seat.taken().await,
        None => std::future::pending().await,
    }
}

fn log_setup(address: SocketAddr, error: &(dyn std::error::Error + 'static)) {
    let error: &(dyn std::error::Error + 'static) = match error.downcast_ref::<russh::Error>() {
        Some(russh::Error::Disconnect) => return tracing::debug!(peer = %address, "closed before a login"),
        Some(russh::Error::IO(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return tracing::debug!(peer = %address, "closed before a login");
        }
        _ => error,
    };
    // Whoever can connect can make it fail: what nobody asked for does not fill the log.
    tracing::debug!(peer = %address, error = format!("{error:?}"), "connection failed before a login");
}

fn log_end(address: SocketAddr, reason: &str) {
    tracing::info!(peer = %address, reason, "connection closed");
}
