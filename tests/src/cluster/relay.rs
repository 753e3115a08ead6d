//! A relay between the client and the API server, which cuts or refuses connections when a test says so.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};

#[derive(Debug, Default)]
struct Links {
    /// Both ends of each connection.
    open: Vec<TcpStream>,
    refusing: bool,
    frozen: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    links: Mutex<Links>,
    thawed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while_frozen(&self) {
        let frozen = self.thawed.wait_while(self.lock(), |links| links.frozen && !links.closed);
        drop(frozen.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Listens on a port of this machine until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Starts a relay to `to`.
    pub fn start(to: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on this machine")?;
        let relay = Relay { address: listener.local_addr()?, shared: Arc::default() };
        let shared = relay.shared.clone();
        // Ends at the first connection after the relay was dropped, which dropping makes.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = shared.lock();
                if state.closed {
                    return;
                }
                if state.refusing {
                    continue;
                }
                if let Ok(ends) = join(client, to, &shared) {
                    state.open.extend(ends);
                }
            }
        });
        Ok(relay)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and until `resume` each new one too.
    pub fn cut(&self) {
        let mut links = self.shared.lock();
        links.refusing = true;
        for end in links.open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Says nothing any more on any connection, as a server that hangs; new ones are accepted.
    pub fn freeze(&self) {
        self.shared.lock().frozen = true;
    }

    /// Lets connections through again, and what was kept back.
    pub fn resume(&self) {
        let mut links = self.shared.lock();
        (links.refusing, links.frozen) = (false, false);
        self.shared.thawed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.shared.lock().closed = true;
        self.shared.thawed.notify_all();
        let _ = TcpStream::connect(self.address);
    }
}

/// Copies both ways between a client and `to`; each thread ends with its connection.
fn join(client: TcpStream, to: SocketAddr, shared: &Arc<Shared>) -> io::Result<[TcpStream; 2]> {
    let server = TcpStream::connect(to)?;
    let ends = [client.try_clone()?, server.try_clone()?];
    for (mut from, mut into) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let shared = shared.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                shared.wait_while_frozen();
                if into.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = into.shutdown(Shutdown::Write);
        });
    }
    Ok(ends)
}
