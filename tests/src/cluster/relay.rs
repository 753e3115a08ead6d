//! A relay between the client and the API server, which cuts or refuses connections when a test says so.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

#[derive(Debug, Default)]
struct Links {
    /// Both ends of each connection.
    open: Vec<TcpStream>,
    refusing: bool,
    closed: bool,
}

/// Listens on a port of this machine until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    links: Arc<Mutex<Links>>,
}

impl Relay {
    /// Starts a relay to `to`.
    pub fn start(to: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on this machine")?;
        let relay = Relay { address: listener.local_addr()?, links: Arc::default() };
        let links = relay.links.clone();
        // Ends at the first connection after the relay was dropped, which dropping makes.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = links.lock().unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                if state.refusing {
                    continue;
                }
                if let Ok(ends) = join(client, to) {
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
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.refusing = true;
        for end in links.open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again.
    pub fn resume(&self) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).refusing = false;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.links.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        let _ = TcpStream::connect(self.address);
    }
}

/// Copies both ways between a client and `to`; each thread ends with its connection.
fn join(client: TcpStream, to: SocketAddr) -> io::Result<[TcpStream; 2]> {
    let server = TcpStream::connect(to)?;
    let ends = [client.try_clone()?, server.try_clone()?];
    for (mut from, mut into) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut into);
            let _ = into.shutdown(Shutdown::Write);
        });
    }
    Ok(ends)
}
