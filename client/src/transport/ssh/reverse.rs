//! Ports of the pod that lead here (`--reverse`, as `ssh -R`): what was asked for, and the connections that come.
//! The pod may be hostile: it reaches the addresses that were named on the command line, and nothing else.

mod line;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use thiserror::Error;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use line::{Dial, Duplex, Line};

/// Connections at once, over all ports: each may hold some megabytes that a service here has not read yet.
const MOST: usize = 64;
/// To connect to something here.
const CONNECT: Duration = Duration::from_secs(10);
/// Where a port leads unless another host is named.
const HERE: &str = "127.0.0.1";

/// `[LOCAL_HOST:]PORT[:PORT]`: an address here, and the port of the pod that leads to it (the same number by default).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseSpec {
    pub host: String,
    pub port: u16,
    /// In the pod.
    pub remote: u16,
}

impl FromStr for ReverseSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad =
            || format!("{text:?} leads nowhere: 5432, 5432:15432, db.local:5432 and [::1]:5432:15432 do");
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let (host, ports) = match (text.strip_prefix('['), text.split_once(':')) {
            (Some(rest), _) => rest.split_once("]:").ok_or_else(bad)?,
            (None, Some((host, ports))) if !is_number(host) => (host, ports),
            (None, _) => (HERE, text),
        };
        let usual = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(usual) {
            return Err(bad());
        }
        let port = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
        let (near, far) = ports.split_once(':').unwrap_or((ports, ports));
        Ok(Self { host: host.to_owned(), port: port(near)?, remote: port(far)? })
    }
}

impl fmt::Display for ReverseSpec {
    /// The address here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What is asked for, and who is told what went wrong with a connection.
#[derive(Debug, Clone)]
pub struct Reverse {
    pub specs: Vec<ReverseSpec>,
    pub say: fn(&str),
}

impl Default for Reverse {
    fn default() -> Self {
        Self { specs: Vec::new(), say: |_| {} }
    }
}

/// Why the agent does not listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unheard {
    #[error("something in the pod listens there already")]
    Taken,
    #[error("the agent does not listen there: it may not, or the key that logged in may not forward")]
    Refused,
}

/// The connections from the pod, as its server offers them.
#[derive(Clone)]
pub(super) struct Doors {
    doors: Arc<[Door]>,
    say: fn(&str),
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Door {
    spec: ReverseSpec,
    /// That nobody answers here was said: an app that tries for ever fills no screen.
    is_said: AtomicBool,
}

impl Doors {
    fn new(reverse: Reverse, stop: CancellationToken) -> Self {
        let door = |spec| Door { spec, is_said: AtomicBool::new(false) };
        Self {
            doors: reverse.specs.into_iter().map(door).collect(),
            say: reverse.say,
            places: Arc::new(Semaphore::new(MOST)),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    fn specs(&self) -> impl Iterator<Item = &ReverseSpec> {
        self.doors.iter().map(|door| &door.spec)
    }

    /// A connection to `port` in the pod; what was not asked for is refused.
    pub(super) async fn offered(&self, channel: Channel<Msg>, port: u32, reply: ChannelOpenHandle) {
        let Some(at) = self.doors.iter().position(|door| u32::from(door.spec.remote) == port) else {
            return reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        let own = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = own.carry(at, channel, reply, place) => {}
                () = own.stop.cancelled() => {}
            }
        });
    }

    /// One connection, from its begin to its end.
    async fn carry(
        &self,
        at: usize,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        place: OwnedSemaphorePermit,
    ) {
        let Some(door) = self.doors.get(at) else { return };
        match connect(&door.spec).await {
            Ok(mut stream) => {
                reply.accept().await;
                door.is_said.store(false, Ordering::Relaxed);
                // Either end may break it off; that is the app's business, or its service's.
                let _ = copy_bidirectional(&mut stream, &mut channel.into_stream()).await;
            }
            Err(error) => {
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                if !door.is_said.swap(true, Ordering::Relaxed) {
                    let ReverseSpec { remote, .. } = door.spec;
                    (self.say)(&format!(
                        "port {remote} of the pod: {} does not answer here: {error}",
                        door.spec
                    ));
                }
            }
        }
        drop(place);
    }
}

async fn connect(spec: &ReverseSpec) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((spec.host.as_str(), spec.port));
    let stream =
        timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_here_comes_first() {
        let spec = |text: &str| text.parse::<ReverseSpec>().map(|s| (s.to_string(), s.remote));
        assert_eq!(spec("5432"), Ok(("127.0.0.1:5432".to_owned(), 5432)));
        assert_eq!(spec("5432:15432"), Ok(("127.0.0.1:5432".to_owned(), 15432)));
        assert_eq!(spec("db.local:5432"), Ok(("db.local:5432".to_owned(), 5432)));
        assert_eq!(spec("10.0.0.7:5432:15432"), Ok(("10.0.0.7:5432".to_owned(), 15432)));
        assert_eq!(spec("[::1]:5432"), Ok(("[::1]:5432".to_owned(), 5432)));
        for bad in [
            "", ":", "0", "70000", "70000:80", ":80", "80:", "db:", "db", "a b:80", "1:2:3", "::1:80",
            "[::1]",
        ] {
            assert!(spec(bad).is_err(), "{bad}");
        }
    }
}
