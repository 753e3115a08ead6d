//! How fast keys are refused: the answers to bad keys take turns, those of one source ten in a second. Only they wait:
//! a key that is good is looked up at once, whoever else is there, because behind a port-forward all clients have one
//! address and nobody may be shut out for what another does. Pure bookkeeping; the time is the caller's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one refusal costs its source.
const TURN: Duration = Duration::from_millis(100);
/// The longest wait for a turn; a login with three keys has to fit into the time that a login may take.
const LONGEST: Duration = Duration::from_secs(5);
/// Sources that are told apart; those beyond it share their turns.
const SOURCES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Penalties {
    /// When the next turn of a source is.
    next: Mutex<HashMap<IpAddr, Instant>>,
}

impl Penalties {
    /// How long the answer to a bad key from there has to wait.
    pub(super) fn wait(&self, source: IpAddr, now: Instant) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= SOURCES {
            next.retain(|_, turn| *turn > now);
        }
        let others = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let source = if next.len() < SOURCES || next.contains_key(&source) { source } else { others };
        let turn = next.entry(source).or_insert(now);
        let wait = turn.saturating_duration_since(now);
        if wait >= LONGEST {
            return LONGEST;
        }
        *turn = (*turn).max(now) + TURN;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn one_client_with_a_few_keys_waits_for_nobody() {
        let (penalties, begin) = (Penalties::default(), Instant::now());
        for n in 0..3 {
            assert_eq!(penalties.wait(A, begin + TURN * n), Duration::ZERO);
        }
    }

    #[test]
    fn a_source_takes_turns_and_another_does_not_notice() {
        let (penalties, begin) = (Penalties::default(), Instant::now());
        let waits: Vec<Duration> = (0..1000).map(|_| penalties.wait(A, begin)).collect();
        assert_eq!(waits[1], TURN);
        assert_eq!(waits[999], LONGEST);
        assert_eq!(penalties.wait(B, begin), Duration::ZERO);
        // What is past is forgotten.
        assert_eq!(penalties.wait(A, begin + LONGEST + TURN), Duration::ZERO);
    }

    #[test]
    fn many_sources_share_what_they_are_remembered_by() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        for n in 0..10_000_u32 {
            penalties.wait(IpAddr::V4(n.into()), now);
        }
        assert!(penalties.next.lock().expect("a lock").len() <= SOURCES + 1);
    }
}
