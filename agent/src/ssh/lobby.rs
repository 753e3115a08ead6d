//! Who may wait for a login: a bounded set of connections, where a newcomer takes the place of the oldest of those
//! that have come as far as most have. A flood stops at some stage and there drives out itself; a client that logs in
//! passes every stage in a few round trips. Pure bookkeeping, no IO.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// How far an unauthenticated connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Silent,
    /// It has sent its identification line.
    Greeted,
    /// It has finished a key exchange, which costs the client too.
    Encrypted,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    source: IpAddr,
    stage: Stage,
    evicted: CancellationToken,
}

/// One in so many of those that are turned away is worth a line: who floods must not fill the log too.
const SAID: u64 = 100;

/// The connections that have not logged in, oldest first.
#[derive(Debug)]
pub(super) struct Lobby {
    total: usize,
    per_source: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    waiting: Vec<Waiting>,
    /// How many had to go so far.
    evicted: u64,
}

impl Lobby {
    pub(super) fn new(total: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { total, per_source, places: Mutex::default() })
    }

    /// Lets a connection in; where the lobby is full somebody else has to go.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Ticket {
        let mut places = self.lock();
        if let Some(victim) = victim(&places.waiting, source, self.total, self.per_source) {
            let victim = places.waiting.remove(victim);
            victim.evicted.cancel();
            if places.evicted.is_multiple_of(SAID) {
                let (source, closed) = (victim.source, places.evicted + 1);
                tracing::warn!(%source, closed, "too many connections wait for a login: the oldest are closed");
            }
            places.evicted += 1;
        }
        let (id, evicted) = (places.next, CancellationToken::new());
        places.next += 1;
        places.waiting.push(Waiting { id, source, stage: Stage::Silent, evicted: evicted.clone() });
        drop(places);
        Ticket { lobby: Arc::clone(self), id, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who goes when a connection from `source` comes: of its own source where that has its share, else of the source
/// that has most; there the oldest of the stage that has most, the earliest of such stages.
fn victim(waiting: &[Waiting], source: IpAddr, total: usize, per_source: usize) -> Option<usize> {
    let count = |source: IpAddr| waiting.iter().filter(|w| w.source == source).count();
    let crowd = if count(source) >= per_source {
        source
    } else if waiting.len() >= total {
        waiting.iter().map(|w| w.source).max_by_key(|source| count(*source))?
    } else {
        return None;
    };
    let at = |stage: Stage| waiting.iter().filter(|w| w.source == crowd && w.stage == stage).count();
    // max_by_key takes the last of equals.
    let stage =
        [Stage::Encrypted, Stage::Greeted, Stage::Silent].into_iter().max_by_key(|stage| at(*stage))?;
    waiting.iter().position(|w| w.source == crowd && w.stage == stage)
}

/// A place in the lobby; dropped at login or at the end of the connection.
#[derive(Debug)]
pub(super) struct Ticket {
    lobby: Arc<Lobby>,
    id: u64,
    evicted: CancellationToken,
}

impl Ticket {
    pub(super) fn advance(&self, stage: Stage) {
        if let Some(waiting) = self.lobby.lock().waiting.iter_mut().find(|w| w.id == self.id) {
            waiting.stage = stage;
        }
    }

    /// Returns when the place was given to somebody else.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lobby.lock().waiting.retain(|w| w.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn of_equal_stages_the_oldest_silent_connection_goes_first() {
        let lobby = Lobby::new(3, 3);
        let greeted = lobby.enter(A);
        greeted.advance(Stage::Greeted);
        let (old, young) = (lobby.enter(A), lobby.enter(A));
        let newcomer = lobby.enter(A);
        assert!(old.evicted.is_cancelled());
        assert!([&greeted, &young, &newcomer].iter().all(|ticket| !ticket.evicted.is_cancelled()));
    }

    #[test]
    fn a_flood_at_one_stage_leaves_the_others_alone() {
        for stage in [Stage::Silent, Stage::Greeted, Stage::Encrypted] {
            let lobby = Lobby::new(9, 9);
            let good = lobby.enter(A);
            let mut flood = Vec::new();
            for good_at in [Stage::Silent, Stage::Greeted, Stage::Encrypted] {
                good.advance(good_at);
                if good_at == stage {
                    continue;
                }
                for _ in 0..20 {
                    let ticket = lobby.enter(A);
                    ticket.advance(stage);
                    flood.push(ticket);
                }
                assert!(!good.evicted.is_cancelled(), "{stage:?}, {good_at:?}");
            }
        }
    }

    #[test]
    fn a_flood_from_one_source_does_not_push_out_another() {
        let lobby = Lobby::new(4, 4);
        let good = lobby.enter(B);
        let flood: Vec<Ticket> = (0..20).map(|_| lobby.enter(A)).collect();
        assert!(!good.evicted.is_cancelled());
        assert_eq!(flood.iter().filter(|ticket| !ticket.evicted.is_cancelled()).count(), 3);
    }

    #[test]
    fn a_source_has_its_share_only() {
        let lobby = Lobby::new(10, 2);
        let tickets: Vec<Ticket> = (0..3).map(|_| lobby.enter(A)).collect();
        assert!(tickets[0].evicted.is_cancelled());
    }

    #[test]
    fn a_place_is_free_again_when_its_holder_leaves() {
        let lobby = Lobby::new(1, 1);
        drop(lobby.enter(A));
        let next = lobby.enter(A);
        assert!(!next.evicted.is_cancelled());
        assert_eq!(lobby.lock().waiting.len(), 1);
    }
}
