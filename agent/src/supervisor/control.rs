//! The control socket: few connections, small buffers, nothing that waits. A peer that says nothing or nonsense costs its own
//! connection only. What a request means is decided elsewhere.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use devsync_protocol::contract::{RUN_SOCKET_PREFIX, RUN_SOCKET_TRIES};
use nix::poll::PollFlags;
use nix::unistd::{geteuid, getpid};

use super::wire::{self, MAX_REQUEST, Refusal, Reply, Request, WireError};
use crate::sys::abstract_socket;

/// Connections at once; one more takes the place of the one that was quiet for longest.
const MAX_CLIENTS: usize = 32;
/// Accepted in a row before what they sent is read: far fewer than there is room for, or a burst would put out connections that
/// have asked already.
const ACCEPTS: usize = 4;
/// Input kept for a connection: one request with its length.
const BUFFER: usize = 4 + MAX_REQUEST;

/// Names a connection for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientId(u64);

pub(crate) struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
    clock: u64,
}

struct Client {
    id: ClientId,
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// A request of it is not answered yet; the next one waits.
    asked: bool,
    /// Close once the output is sent.
    last: bool,
    /// Of the control's clock, when it last sent something.
    active: u64,
}

impl Control {
    /// Listens on the first free name of this process's pid.
    pub(crate) fn bind() -> io::Result<Self> {
        let pid = getpid();
        let mut tries = 0;
        loop {
            let name = match tries {
                0 => format!("{RUN_SOCKET_PREFIX}{pid}"),
                n => format!("{RUN_SOCKET_PREFIX}{pid}.{n}"),
            };
            match abstract_socket::bind(name.as_bytes()) {
                Ok(listener) => return Ok(Self { listener, clients: Vec::new(), clock: 0 }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < RUN_SOCKET_TRIES => {
                    tries += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Descriptors to poll, and for what.
    pub(crate) fn interest(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients =
            self.clients.iter().filter_map(|client| Some((client.stream.as_fd(), client.interest()?)));
        std::iter::once((self.listener.as_fd(), PollFlags::POLLIN)).chain(clients)
    }

    /// Whether a request was read already and can be answered now, which no descriptor would tell.
    pub(crate) fn has_request(&self) -> bool {
        self.clients.iter().any(Client::has_request)
    }

    /// Accepts, reads and writes whatever is ready; the requests that are now to be answered.
    pub(crate) fn turn(&mut self) -> Vec<(ClientId, Request)> {
        self.accept();
        let mut requests = Vec::new();
        self.clock += 1;
        for client in &mut self.clients {
            client.send();
            if client.receive() {
                client.active = self.clock;
            }
            if let Some(request) = client.next_request() {
                requests.push((client.id, request));
            }
        }
        self.clients.retain(|client| !client.is_done());
        requests
    }

    /// Answers; an id that has gone meanwhile is no error.
    pub(crate) fn answer(&mut self, id: ClientId, reply: &Reply) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.reply(reply);
            client.send();
        }
    }

    /// Writes what is still to be sent, when the process is about to end.
    pub(crate) fn refuse_waiting(&mut self) {
        for client in self.clients.iter_mut().filter(|client| client.asked) {
            client.reply(&Reply::Refused(Refusal::Ending));
            client.send();
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            // WouldBlock is the usual end; EMFILE and its like get better or not, and the next turn tries again.
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.clock += 1;
            let mut client = Client::new(ClientId(self.clock), stream, self.clock);
            if !client.may_command() {
                client.reply(&Reply::Refused(Refusal::Uid));
                client.send();
                continue;
            }
            self.make_room();
            self.clients.push(client);
        }
    }

    /// A connection that waits for a restart is kept before one that only sits there.
    fn make_room(&mut self) {
        if self.clients.len() < MAX_CLIENTS {
            return;
        }
        let quietest =
            self.clients.iter().enumerate().min_by_key(|(_, client)| (client.asked, client.active));
        if let Some((index, _)) = quietest {
            self.clients.remove(index);
        }
    }
}

impl Client {
    fn new(id: ClientId, stream: UnixStream, active: u64) -> Self {
        Self { id, stream, input: Vec::new(), output: Vec::new(), asked: false, last: false, active }
    }

    /// Root and the supervisor's own uid may; the kernel vouches for who it is.
    fn may_command(&self) -> bool {
        abstract_socket::peer(&self.stream).is_ok_and(|peer| peer.uid == 0 || peer.uid == geteuid().as_raw())
    }

    /// None while its buffer is full and its request unanswered: a hangup would else be reported without end.
    fn interest(&self) -> Option<PollFlags> {
        match (self.output.is_empty(), self.room()) {
            (false, _) => Some(PollFlags::POLLOUT),
            (true, 0) => None,
            (true, _) => Some(PollFlags::POLLIN),
        }
    }

    fn room(&self) -> usize {
        BUFFER.saturating_sub(self.input.len())
    }

    fn may_ask(&self) -> bool {
        !self.asked && !self.last && self.output.is_empty()
    }

    fn has_request(&self) -> bool {
        self.may_ask() && !matches!(wire::decode::<Request>(&self.input, MAX_REQUEST), Ok(None))
    }

    fn is_done(&self) -> bool {
        self.last && self.output.is_empty()
    }

    /// Reads at most what one request may have; true if there was something.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        let room = self.room();
        if room == 0 || self.last || !self.output.is_empty() {
            return false;
        }
        match self.stream.read(&mut buffer[..room]) {
            Ok(0) => self.close(),
            Ok(n) => {
                self.input.extend(&buffer[..n]);
                return true;
            }
            Err(error) if is_transient(&error) => {}
            Err(_) => self.close(),
        }
        false
    }

    /// Sends what the peer takes now.
    fn send(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(),
            }
        }
    }

    fn close(&mut self) {
        self.last = true;
        self.output.clear();
    }

    /// The next whole request, once the one before is answered and the answer sent.
    fn next_request(&mut self) -> Option<Request> {
        if !self.may_ask() {
            return None;
        }
        let refusal = match wire::decode(&self.input, MAX_REQUEST) {
            Ok(None) => return None,
            Ok(Some((request, used))) => {
                self.input.drain(..used);
                self.asked = true;
                return Some(request);
            }
            Err(WireError::Version(_)) => Refusal::Version(wire::VERSION),
            Err(WireError::TooLong(..) | WireError::Malformed) => Refusal::Malformed,
        };
        self.reply(&Reply::Refused(refusal));
        self.last = true;
        self.send();
        None
    }

    fn reply(&mut self, reply: &Reply) {
        self.asked = false;
        if wire::encode(reply, &mut self.output).is_err() {
            self.close();
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
