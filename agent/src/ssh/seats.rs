//! Whose a connection is: a client that lost one without a word comes again and takes its own place at once, instead
//! of waiting until the agent has noticed the loss. Who may is proved by the key; the session's name only tells two
//! clients with one key apart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the connection before is waited for: what it has begun to commit it finishes.
const LEAVE: Duration = Duration::from_secs(5);
/// Longest name of a session.
const LONGEST: usize = 64;

/// The key's fingerprint, and the session's name.
type Name = (String, String);

struct Holder {
    number: u64,
    cut: CancellationToken,
    gone: CancellationToken,
}

#[derive(Default)]
struct State {
    count: u64,
    holders: HashMap<Name, Holder>,
}

/// The places of all connections that named a session.
#[derive(Default)]
pub(super) struct Seats(Mutex<State>);

/// A connection's place, until this is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    name: Name,
    number: u64,
    /// The same client came again.
    cut: CancellationToken,
    _gone: DropGuard,
}

/// True for what a client may call its session.
pub(super) fn is_session(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of `key`'s session; the connection that has it is cut, and its end waited for.
    pub(super) async fn take(self: &Arc<Self>, key: &str, session: &str) -> Seat {
        let name = (key.to_owned(), session.to_owned());
        let (cut, gone) = (CancellationToken::new(), CancellationToken::new());
        let (number, before) = {
            let mut state = self.lock();
            state.count += 1;
            let holder = Holder { number: state.count, cut: cut.clone(), gone: gone.clone() };
            (state.count, state.holders.insert(name.clone(), holder))
        };
        let seat = Seat { seats: Arc::clone(self), name, number, cut, _gone: gone.drop_guard() };
        if let Some(before) = before {
            before.cut.cancel();
            // One that works on is told by the target's lock.
            let _ = timeout(LEAVE, before.gone.cancelled()).await;
        }
        seat
    }
}

impl Seat {
    /// Returns when the same client has come again.
    pub(super) async fn taken(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.seats.lock();
        if state.holders.get(&self.name).is_some_and(|holder| holder.number == self.number) {
            state.holders.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(seat: &Seat) -> bool {
        seat.cut.is_cancelled()
    }

    #[tokio::test]
    async fn only_the_same_key_with_the_same_session_takes_a_place() {
        let seats = Arc::new(Seats::default());
        let first = seats.take("ann", "1").await;
        let others = [seats.take("bob", "1").await, seats.take("ann", "2").await];
        assert!(!is_cut(&first) && !others.iter().any(is_cut));
        // The second one waits until the first has left.
        let leaving = async {
            first.taken().await;
            assert_eq!(seats.lock().holders.len(), 3);
            drop(first);
        };
        let (second, ()) = tokio::join!(seats.take("ann", "1"), leaving);
        assert!(!is_cut(&second) && !others.iter().any(is_cut));
        assert_eq!(seats.lock().holders.len(), 3);
        drop((second, others));
        assert!(seats.lock().holders.is_empty());
    }

    #[test]
    fn a_session_s_name_is_short_and_plain() {
        assert!(is_session("0123abcdef") && is_session("a-reverse"));
        for bad in ["", "a b", "a\n", "é", "x".repeat(65).as_str()] {
            assert!(!is_session(bad), "{bad:?}");
        }
    }
}
