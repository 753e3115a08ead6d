//! Forwarded connections: from the client into the pod (`ssh -L`, `-D`), and from the pod to the client (`-R`).
//! TCP keeps to the pod's own addresses unless the server was told otherwise; unix sockets are the app's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use std::future::Future;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Peer;
use super::pump::{inward, outward};
use super::throttle::Throttle;
use crate::target::find::Query;
use crate::target::sockets::UnixName;
use crate::world::World;

/// To connect to something in the pod.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a connection from the client goes.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    Tcp { host: String, port: u32 },
    Unix { path: String },
}

/// What is listened on for the client, in its own words: that is how it is cancelled, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Listen {
    Tcp { address: String, port: u32 },
    Unix { path: String },
}

/// What the forwards of a connection share.
#[derive(Clone)]
pub(super) struct Forwards {
    /// For the log.
    pub(super) peer: Peer,
    pub(super) handle: Handle,
    pub(super) throttle: Arc<Throttle>,
    pub(super) target: Query,
    /// See `SshConfig::open_forwards`.
    pub(super) open: bool,
    pub(super) places: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The addresses and sockets that a connection listens on.
#[derive(Debug, Default)]
pub(super) struct Listeners(HashMap<Listen, CancellationToken>);

impl Destination {
    fn shown(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{host}:{port}").escape_debug().to_string(),
            Self::Unix { path } => path.escape_debug().to_string(),
        }
    }
}

impl Forwards {
    /// Connects, says so to the client, and carries bytes until both ends are done.
    pub(super) async fn dial(
        self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        to: Destination,
        place: OwnedSemaphorePermit,
    ) {
        let connected = match &to {
            Destination::Tcp { host, port } => self.tcp(host, *port).await.map(Stream::Tcp),
            Destination::Unix { path } => self.unix(path).await.map(Stream::Unix),
        };
        match connected {
            Ok(stream) => {
                tracing::info!(peer = %self.peer, to = to.shown(), "forward begins");
                reply.accept().await;
                self.carry(channel, stream).await;
            }
            Err(Refusal { reason, why }) => {
                tracing::warn!(peer = %self.peer, to = to.shown(), why, "forward refused");
                reply.reject(reason).await;
            }
        }
        drop(place);
    }

    async fn tcp(&self, host: &str, port: u32) -> Result<TcpStream, Refusal> {
        let port = u16::try_from(port).map_err(|_| Refusal::prohibited("there is no such port"))?;
        let found = timeout(CONNECT, tokio::net::lookup_host((host.trim_matches(['[', ']']), port))).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(Refusal::failed(&error)),
            Err(_) => return Err(Refusal::late()),
        };
        let permitted: Vec<SocketAddr> =
            found.into_iter().filter(|to| self.open || is_own(to.ip())).collect();
        if permitted.is_empty() {
            return Err(Refusal::prohibited(
                "the address is not the pod's own (hint: the agent's --open-forwards permits others)",
            ));
        }
        match timeout(CONNECT, TcpStream::connect(permitted.as_slice())).await {
            Ok(Ok(stream)) => {
                // Small messages in both directions are what is forwarded most.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(Refusal::failed(&error)),
            Err(_) => Err(Refusal::late()),
        }
    }

    async fn unix(&self, path: &str) -> Result<UnixStream, Refusal> {
        let (target, path) = (self.target.clone(), path.to_owned());
        let connected = tokio::task::spawn_blocking(move || {
            let world = World::open(&target).map_err(io::Error::other)?;
            world.root().connect_unix(path.as_bytes(), CONNECT).map_err(io::Error::other)
        });
        let stream = connected.await.map_err(io::Error::other).and_then(|done| done);
        stream.and_then(UnixStream::from_std).map_err(|error| Refusal::failed(&error))
    }

    async fn carry(&self, channel: Channel<Msg>, stream: Stream) {
        match stream {
            Stream::Tcp(mut stream) => {
                let (read, write) = stream.split();
                self.pump(channel, read, write).await;
            }
            Stream::Unix(mut stream) => {
                let (read, write) = stream.split();
                self.pump(channel, read, write).await;
            }
        }
    }

    async fn pump(
        &self,
        channel: Channel<Msg>,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
    ) {
        let (incoming, outgoing) = channel.split();
        let drained = CancellationToken::new();
        let both = async {
            if outward(read, &outgoing, None, &self.throttle).await.is_ok() {
                let _ = outgoing.eof().await;
            }
            drained.cancelled().await;
        };
        tokio::select! {
            // The client has closed: what it sent is written, what it does not read is dropped.
            () = inward(incoming, write, &self.throttle, &drained, |_| {}) => {}
            () = both => {}
            () = self.stop.cancelled() => {}
        }
        let _ = outgoing.close().await;
    }

    /// Begins to listen for the client; the port where it asked for any.
    pub(super) async fn listen(&self, what: &Listen, listeners: &mut Listeners, most: usize) -> Option<u32> {
        let begun = if listeners.0.len() >= most || listeners.0.contains_key(what) {
            Err(io::Error::other("it is listened on already, or on too many"))
        } else {
            match what {
                Listen::Tcp { address, port } => self.listen_tcp(address, *port).await,
                Listen::Unix { path } => self.listen_unix(path).await,
            }
        };
        match begun {
            Ok((key, port, stop)) => {
                tracing::info!(peer = %self.peer, on = ?key, "listens for the client");
                listeners.0.insert(key, stop);
                Some(port)
            }
            Err(error) => {
                tracing::warn!(peer = %self.peer, on = ?what, %error, "listening refused");
                None
            }
        }
    }

    async fn listen_tcp(&self, address: &str, port: u32) -> io::Result<(Listen, u32, CancellationToken)> {
        let number = u16::try_from(port).map_err(|_| io::Error::other("there is no such port"))?;
        let to = self.bind_address(address)?;
        let listener = TcpListener::bind(SocketAddr::new(to, number)).await?;
        let bound = u32::from(listener.local_addr()?.port());
        let stop = self.stop.child_token();
        let (forwards, named, ended) = (self.clone(), address.to_owned(), stop.clone());
        self.tasks.spawn(async move {
            loop {
                let (stream, from) = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::warn!(%error, "a forwarded connection could not be accepted");
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                    () = ended.cancelled() => return,
                };
                let _ = stream.set_nodelay(true);
                let Some(place) = forwards.place() else { continue };
                let (forwards, named) = (forwards.clone(), named.clone());
                let tasks = forwards.tasks.clone();
                tasks.spawn(async move {
                    let (origin, from_port) = (from.ip().to_string(), u32::from(from.port()));
                    let open = forwards.handle.channel_open_forwarded_tcpip(named, bound, origin, from_port);
                    forwards.offer(open, Stream::Tcp(stream), place).await;
                });
            }
        });
        Ok((Listen::Tcp { address: address.to_owned(), port: bound }, bound, stop))
    }

    async fn listen_unix(&self, path: &str) -> io::Result<(Listen, u32, CancellationToken)> {
        let (target, name) = (self.target.clone(), path.to_owned());
        let bound = tokio::task::spawn_blocking(move || {
            let world = World::open(&target).map_err(io::Error::other)?;
            world.root().bind_unix(name.as_bytes()).map_err(io::Error::other)
        });
        let (listener, name) = bound.await.map_err(io::Error::other)??;
        let listener = UnixListener::from_std(listener)?;
        let stop = self.stop.child_token();
        let (forwards, path, ended) = (self.clone(), path.to_owned(), stop.clone());
        let key = Listen::Unix { path: path.clone() };
        self.tasks.spawn(async move {
            forwards.accept_unix(&listener, &path, &ended).await;
            drop(listener);
            remove(name).await;
        });
        Ok((key, 0, stop))
    }

    async fn accept_unix(&self, listener: &UnixListener, path: &str, ended: &CancellationToken) {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a forwarded connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = ended.cancelled() => return,
            };
            let Some(place) = self.place() else { continue };
            let (forwards, path) = (self.clone(), path.to_owned());
            self.tasks.spawn(async move {
                let open = forwards.handle.channel_open_forwarded_streamlocal(path);
                forwards.offer(open, Stream::Unix(stream), place).await;
            });
        }
    }

    /// Offers an accepted connection to the client, and carries it where that takes it.
    async fn offer(
        &self,
        open: impl Future<Output = Result<Channel<Msg>, russh::Error>>,
        stream: Stream,
        place: OwnedSemaphorePermit,
    ) {
        let opened = tokio::select! {
            opened = open => opened,
            () = self.stop.cancelled() => return,
        };
        match opened {
            Ok(channel) => self.carry(channel, stream).await,
            Err(error) => tracing::warn!(%error, "the client did not take a forwarded connection"),
        }
        drop(place);
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if place.is_none() {
            tracing::warn!("a forwarded connection is refused: there are too many");
        }
        place
    }

    /// As sshd without GatewayPorts: names for "everywhere" mean the loopback.
    fn bind_address(&self, address: &str) -> io::Result<IpAddr> {
        let everywhere = matches!(address, "" | "*" | "0.0.0.0" | "::");
        match address {
            _ if everywhere && !self.open => Ok(Ipv4Addr::LOCALHOST.into()),
            "" | "*" => Ok(Ipv4Addr::UNSPECIFIED.into()),
            "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
            address => match address.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) if self.open || ip.is_loopback() => Ok(ip),
                Ok(_) => Err(io::Error::other(
                    "only the loopback is listened on (hint: the agent's --open-forwards permits more)",
                )),
                Err(_) => Err(io::Error::other("an address is wanted, or localhost")),
            },
        }
    }
}

impl Listeners {
    /// Ends what was begun with the same words.
    pub(super) fn cancel(&mut self, what: &Listen) -> bool {
        self.0.remove(what).map(|stop| stop.cancel()).is_some()
    }
}

async fn remove(name: UnixName) {
    // A task that was not joined is a bug elsewhere, and a name that is left is only litter.
    let _ = tokio::task::spawn_blocking(move || name.remove()).await;
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Refusal {
    reason: ChannelOpenFailure,
    why: String,
}

impl Refusal {
    fn prohibited(why: &str) -> Self {
        Self { reason: ChannelOpenFailure::AdministrativelyProhibited, why: why.to_owned() }
    }

    fn failed(error: &io::Error) -> Self {
        Self { reason: ChannelOpenFailure::ConnectFailed, why: error.to_string() }
    }

    fn late() -> Self {
        let why = format!("no answer within {} s", CONNECT.as_secs());
        Self { reason: ChannelOpenFailure::ConnectFailed, why }
    }
}

/// The loopback, or an address of one of the pod's interfaces.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    // `0.0.0.0` connects to this host.
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    getifaddrs().is_ok_and(|mut interfaces| {
        interfaces.any(|interface| {
            interface.address.is_some_and(|found| {
                let v4 = found.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
                let v6 = found.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip()));
                v4.or(v6) == Some(address)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_host_are_its_own() {
        for own in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert!(is_own(own.parse().expect("an address")), "{own}");
        }
        for other in ["192.0.2.1", "169.254.169.254", "2001:db8::1", "10.255.255.254"] {
            assert!(!is_own(other.parse().expect("an address")), "{other}");
        }
    }
}
