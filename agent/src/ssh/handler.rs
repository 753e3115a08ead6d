//! russh's callbacks, turned into answers and into events for the connection's task. No state but counters, no IO
//! but the look into authorized_keys.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use devsync_protocol::contract::{BESIDE, PROGRAM, PROGRAM_VARIABLE, SESSION_VARIABLE, SHELL_VARIABLE};
use russh::keys::{HashAlg, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, Pty, Sig};
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::channel::{is_subsystem, permits_variable};
use super::forward::{Destination, Listen};
use super::key_options::Rights;
use super::seats::is_session;
use super::throttle::Throttle;
use super::{Peer, Shared};

/// Names from the wire are cut to this many characters before they are kept or logged.
const NAME: usize = 64;

/// What the connection's task has to know.
pub(super) enum Event {
    Encrypted,
    LoggedIn(Peer, OwnedSemaphorePermit),
    Opened(Channel<Msg>, OwnedSemaphorePermit),
    /// The client says which session this is; answered when the connection that it had before is gone.
    Named {
        session: String,
        answer: oneshot::Sender<()>,
    },
    /// The client would have a shell beside the app where the agent cannot enter its root; answered by whether it can
    /// have one.
    Beside {
        channel: ChannelId,
        answer: oneshot::Sender<bool>,
    },
    /// The client wants to be connected.
    Dial {
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: Destination,
    },
    /// The client wants connections; the answer is the port, or none.
    Listen {
        what: Listen,
        answer: oneshot::Sender<Option<u32>>,
    },
    /// And no more of them.
    Cancel {
        what: Listen,
        answer: oneshot::Sender<bool>,
    },
}

pub(super) struct ConnectionHandler {
    address: SocketAddr,
    shared: Arc<Shared>,
    throttle: Arc<Throttle>,
    events: Sender<Event>,
    channels: Arc<Semaphore>,
    /// Keys refused so far.
    refused: usize,
    login: Option<(Peer, OwnedSemaphorePermit)>,
    /// What the key that logged in is good for.
    rights: Rights,
    /// Channels whose work has begun.
    started: HashSet<ChannelId>,
}

impl ConnectionHandler {
    pub(super) fn new(
        address: SocketAddr,
        shared: Arc<Shared>,
        throttle: Arc<Throttle>,
        events: Sender<Event>,
    ) -> Self {
        let channels = Arc::new(Semaphore::new(shared.limits.channels));
        Self {
            address,
            shared,
            throttle,
            events,
            channels,
            refused: 0,
            login: None,
            rights: Rights::default(),
            started: HashSet::new(),
        }
    }

    fn peer(&self, user: &str, key: &PublicKey) -> Peer {
        let key = key.fingerprint(HashAlg::Sha256).to_string();
        let user = user.chars().take(NAME).collect();
        Peer { address: self.address, user, key, grant: None, rights: Rights::default() }
    }

    /// Whether this key may log in, and for what; asked when it is offered and again when it is proved.
    async fn permits(&mut self, user: &str, key: &PublicKey) -> Option<Peer> {
        let mut peer = self.peer(user, key);
        let reason = if self.refused >= self.shared.limits.auth_attempts {
            Some("too many keys were tried".to_owned())
        } else {
            let (shared, key, source) = (Arc::clone(&self.shared), key.clone(), self.address.ip());
            match tokio::task::spawn_blocking(move || shared.check(&key, source)).await {
                Ok(Ok((grant, rights))) => {
                    (peer.grant, peer.rights) = (grant, rights);
                    None
                }
                Ok(Err(refusal)) => Some(refusal.to_string()),
                Err(error) => Some(error.to_string()),
            }
        };
        if let Some(reason) = reason {
            self.refused += 1;
            self.wait_for_turn().await;
            if !self.events.is_closed() {
                tracing::warn!(%peer, reason, "login refused");
            }
            return None;
        }
        Some(peer)
    }

    /// Before a bad key is answered; no longer than the connection's task lives.
    async fn wait_for_turn(&self) {
        let wait = self.shared.penalties.wait(self.address.ip(), Instant::now());
        let _ = tokio::time::timeout(wait, self.events.closed()).await;
    }

    /// Tells the connection's task; the connection ends where that is gone.
    async fn tell(&self, event: Event) -> Result<(), Error> {
        self.events.send(event).await.map_err(|_| Error::Disconnect)
    }

    fn refuse_request(&self, what: &str, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        tracing::warn!(peer = %self.address, request = what, "request refused");
        session.channel_failure(channel)
    }

    fn refuse_forward(&self, what: &str) -> Result<bool, Error> {
        tracing::warn!(peer = %self.address, request = what, "request refused");
        Ok(false)
    }

    /// The first of its channel starts something; the channel's task sees the same request and decides alike.
    fn start(&mut self, what: &str, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        if self.started.insert(channel) {
            return session.channel_success(channel);
        }
        self.refuse_request(what, channel, session)
    }

    async fn dial(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: Destination,
    ) -> Result<(), Error> {
        if self.rights.forwards {
            return self.tell(Event::Dial { channel, reply, to }).await;
        }
        self.refuse_forward("a forward (the key's options forbid it)")?;
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    /// The port, or none where it is refused.
    async fn listen(&mut self, what: Listen) -> Result<Option<u32>, Error> {
        if !self.rights.forwards {
            self.refuse_forward("listening (the key's options forbid it)")?;
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        self.tell(Event::Listen { what, answer }).await?;
        Ok(answered.await.unwrap_or(None))
    }

    async fn cancel(&mut self, what: Listen) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        self.tell(Event::Cancel { what, answer }).await?;
        Ok(answered.await.unwrap_or(false))
    }
}

impl Handler for ConnectionHandler {
    type Error = Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Error> {
        // russh asks for it when the key exchange is done and authentication begins.
        self.tell(Event::Encrypted).await?;
        Ok(None)
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        let permitted = self.permits(user, offer.public_key).await;
        Ok(if permitted.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let Some(peer) = self.permits(user, key.public_key).await else {
            return Ok(Auth::reject());
        };
        let Ok(place) = Arc::clone(&self.shared.sessions).try_acquire_owned() else {
            tracing::warn!(%peer, reason = "too many connections", "login refused");
            return Ok(Auth::reject());
        };
        self.login = Some((peer, place));
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Error> {
        let (peer, place) = self.login.take().ok_or(Error::NotAuthenticated)?;
        tracing::info!(%peer, "login");
        self.rights = peer.rights.clone();
        if let Some(grant) = &peer.grant {
            self.shared.registered.used(grant, Instant::now());
        }
        self.tell(Event::LoggedIn(peer, place)).await
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        match Arc::clone(&self.channels).try_acquire_owned() {
            Ok(place) => {
                reply.accept().await;
                self.tell(Event::Opened(channel, place)).await
            }
            Err(_) => {
                tracing::warn!(peer = %self.address, reason = "too many channels", "channel refused");
                reply.reject(ChannelOpenFailure::ResourceShortage).await;
                Ok(())
            }
        }
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.started.remove(&channel);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        let shown: String = name.chars().take(NAME).collect();
        let what = format!("subsystem {shown:?}");
        if is_subsystem(name) {
            return self.start(&what, channel, session);
        }
        self.refuse_request(&what, channel, session)
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.throttle.window()
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start("shell", channel, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Error> {
        self.start("exec", channel, session)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        if self.rights.terminal && !self.started.contains(&channel) {
            return session.channel_success(channel);
        }
        self.refuse_request("pty", channel, session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        self.refuse_request("x11", channel, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Error> {
        if name == SESSION_VARIABLE && is_session(value) {
            let (answer, answered) = oneshot::channel();
            self.tell(Event::Named { session: value.to_owned(), answer }).await?;
            let _ = answered.await;
            return session.channel_success(channel);
        }
        if (name, value) == (SHELL_VARIABLE, BESIDE) && self.rights.beside {
            let (answer, answered) = oneshot::channel();
            self.tell(Event::Beside { channel, answer }).await?;
            return match answered.await {
                Ok(true) => session.channel_success(channel),
                _ => session.channel_failure(channel),
            };
        }
        if (name, value) == (PROGRAM_VARIABLE, PROGRAM) {
            return session.channel_success(channel);
        }
        // Clients send these unasked (SendEnv): a refusal is not worth a line.
        if permits_variable(name, value) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        session.channel_success(channel)
    }

    async fn signal(&mut self, channel: ChannelId, _: Sig, session: &mut Session) -> Result<(), Error> {
        session.channel_success(channel)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forward("agent forwarding")
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, _: &mut Session) -> Result<bool, Error> {
        let bound = self.listen(Listen::Tcp { address: address.to_owned(), port: *port }).await?;
        Ok(bound.inspect(|bound| *port = *bound).is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Error> {
        self.cancel(Listen::Tcp { address: address.to_owned(), port }).await
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        Ok(self.listen(Listen::Unix { path: path.to_owned() }).await?.is_some())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        self.cancel(Listen::Unix { path: path.to_owned() }).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.dial(channel, reply, Destination::Tcp { host: host.to_owned(), port }).await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.dial(channel, reply, Destination::Unix { path: path.to_owned() }).await
    }
}
