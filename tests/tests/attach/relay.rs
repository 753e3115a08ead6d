//! A TCP relay that can cut connections, or swallow what they carry.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// How often a waiting relay looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Relay {
    address: SocketAddr,
    orders: Arc<Orders>,
}

#[derive(Default)]
struct Orders {
    /// Bytes towards the server until the cut; 0 for none.
    left: AtomicU64,
    cuts: AtomicU64,
    swallow: AtomicBool,
    /// Connections so far, and those of them that are silent for good.
    count: AtomicU64,
    stranded: AtomicU64,
    over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub(crate) fn start(server: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let orders = Arc::new(Orders::default());
        let own = orders.clone();
        // Ends with the relay.
        thread::spawn(move || {
            while !own.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        // A server that is not there is a connection that ends.
                        let _ = own.carry(client, server);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                    Err(_) => return,
                }
            }
        });
        Ok(Relay { address, orders })
    }

    pub(crate) fn target(&self) -> String {
        format!("ssh/{}", self.address)
    }

    /// Cuts the connection that carries the byte of this number towards the server, from now on.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.orders.left.store(bytes, Ordering::Relaxed);
    }

    /// How often that happened.
    pub(crate) fn cuts(&self) -> u64 {
        self.orders.cuts.load(Ordering::Relaxed)
    }

    /// Nothing that any connection carries arrives from now on.
    pub(crate) fn swallow(&self) {
        self.orders.swallow.store(true, Ordering::Relaxed);
    }

    /// Nothing of the connections so far arrives, not even their end; new ones work.
    pub(crate) fn strand(&self) {
        self.orders.stranded.store(self.orders.count.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// New connections work again; those from before are gone.
    pub(crate) fn heal(&self) {
        self.orders.close_all();
        self.orders.swallow.store(false, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.orders.over.store(true, Ordering::Relaxed);
        self.orders.close_all();
    }
}

impl Orders {
    fn close_all(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn carry(self: &Arc<Self>, client: TcpStream, server: SocketAddr) -> Result<()> {
        client.set_nonblocking(false)?;
        let server = TcpStream::connect(server)?;
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend([client.try_clone()?, server.try_clone()?]);
        let (up, down) = (self.clone(), self.clone());
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || up.pump(from_client, to_server, number, true));
        thread::spawn(move || down.pump(server, client, number, false));
        Ok(())
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, number: u64, counts: bool) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer);
            // Not even read, as by a peer that is away.
            while self.is_silent(number) && !self.over.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
            }
            let Ok(len @ 1..) = read else { break };
            if counts && self.is_last(len as u64) {
                break;
            }
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn is_silent(&self, number: u64) -> bool {
        self.swallow.load(Ordering::Relaxed) || number <= self.stranded.load(Ordering::Relaxed)
    }

    /// Whether the cut comes within the next `len` bytes.
    fn is_last(&self, len: u64) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return false;
        }
        self.left.store(left.saturating_sub(len), Ordering::Relaxed);
        let cut = left <= len;
        self.cuts.fetch_add(u64::from(cut), Ordering::Relaxed);
        cut
    }
}
