//! Whether the agent at the other end still lives: an idle one is asked, and one that does not answer ends the session.
//!
//! An agent that works on a request says so every few seconds by itself, so silence means the same at all times.

use std::time::{Duration, Instant, SystemTime};

use devsync_protocol::message::Request;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Handle, Outgoing, SessionError};

/// How often the signs of life are looked at.
const TICK: Duration = Duration::from_secs(1);
/// An agent that said nothing for so long is asked whether it lives.
const ASK_AFTER: Duration = Duration::from_secs(5);
/// How long it may take to answer; with [`ASK_AFTER`] a loss is found within 15 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(9);
/// The same right after this machine slept, when it is asked at once.
const ANSWER_AFTER_SLEEP: Duration = Duration::from_secs(5);
/// A link that takes no byte for so long is lost.
const STUCK: Duration = Duration::from_secs(14);
/// Two looks so far apart, by either clock, have a sleep between them: the monotonic one stands still meanwhile.
const SLEPT: Duration = Duration::from_secs(4);

/// What is to be done at a look.
#[derive(Debug, PartialEq, Eq)]
enum Beat {
    Rest,
    Ask,
    Dead(Duration),
}

/// What the counters of the link said.
#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    received: u64,
    sent: u64,
    /// Bytes wait until the link takes them.
    is_waiting: bool,
}

/// The signs of life so far. Pure: the clocks are given.
struct Vitals {
    signs: Signs,
    /// When something last came.
    heard: Instant,
    /// When something last went out, or nothing had to.
    moved: Instant,
    asked: Option<Instant>,
    answer_within: Duration,
    looked: (Instant, SystemTime),
}

impl Vitals {
    fn new(now: Instant, clock: SystemTime) -> Self {
        Self {
            signs: Signs::default(),
            heard: now,
            moved: now,
            asked: None,
            answer_within: ANSWER_WITHIN,
            looked: (now, clock),
        }
    }

    fn look(&mut self, now: Instant, clock: SystemTime, signs: Signs) -> Beat {
        let gap = now.saturating_duration_since(self.looked.0);
        let clock_gap = clock.duration_since(self.looked.1).unwrap_or_default();
        self.looked = (now, clock);
        if signs.received != self.signs.received {
            self.heard = now;
            self.asked = None;
            self.answer_within = ANSWER_WITHIN;
        }
        if signs.sent != self.signs.sent || !signs.is_waiting {
            self.moved = now;
        }
        self.signs = signs;
        if gap > SLEPT || clock_gap > gap + SLEPT {
            // What came meanwhile may not be read yet, so nobody is dead: the answer to a new question decides.
            self.moved = now;
            self.asked = None;
            self.answer_within = ANSWER_AFTER_SLEEP;
            return Beat::Ask;
        }
        let silence = now.saturating_duration_since(self.heard);
        let is_unanswered =
            self.asked.is_some_and(|asked| now.saturating_duration_since(asked) >= self.answer_within);
        if is_unanswered || now.saturating_duration_since(self.moved) >= STUCK {
            return Beat::Dead(silence);
        }
        match self.asked {
            None if silence >= ASK_AFTER => Beat::Ask,
            _ => Beat::Rest,
        }
    }

    fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }
}

/// Watches over a session until it ends.
pub(super) async fn watch(handle: Handle) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut vitals = Vitals::new(Instant::now(), SystemTime::now());
    let mut nonce = 0;
    // The question after a sleep is asked again where the way out was taken.
    let mut owed = false;
    loop {
        ticks.tick().await;
        let signs = Signs {
            received: handle.received(),
            sent: handle.sent(),
            is_waiting: handle.writer.is_waiting(),
        };
        let beat = vitals.look(Instant::now(), SystemTime::now(), signs);
        if let Beat::Dead(silence) = beat {
            return handle.router.end(SessionError::Silent { seconds: silence.as_secs() }).await;
        }
        owed |= beat == Beat::Ask;
        // While somebody writes, the link's taking of it is the sign.
        let Some(guard) = owed.then(|| handle.writer.try_lock()).flatten() else { continue };
        owed = false;
        nonce += 1;
        let ping = Request::Ping { nonce };
        let mut outgoing = Outgoing::new(&handle.router, guard);
        let asking = async {
            outgoing.push(&ping).await?;
            outgoing.flush().await
        };
        vitals.asked(Instant::now());
        match timeout(vitals.answer_within, asking).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                let seconds = vitals.heard.elapsed().as_secs();
                return handle.router.end(SessionError::Silent { seconds }).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second from `from` on, for `seconds`; gives the seconds at which something was to be done.
    /// Questions are taken as asked.
    fn looks(
        vitals: &mut Vitals,
        start: Instant,
        from: u64,
        seconds: u64,
        signs: impl Fn(u64) -> Signs,
    ) -> Vec<(u64, Beat)> {
        let clock = vitals.looked.1 - vitals.looked.0.duration_since(start);
        let mut done = Vec::new();
        for second in from..from + seconds {
            let now = start + Duration::from_secs(second);
            let beat = vitals.look(now, clock + Duration::from_secs(second), signs(second));
            if beat == Beat::Ask {
                vitals.asked(now);
            }
            if beat != Beat::Rest {
                done.push((second, beat));
            }
        }
        done
    }

    fn begun() -> (Instant, Vitals) {
        let start = Instant::now();
        (start, Vitals::new(start, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)))
    }

    #[test]
    fn silence_is_found_within_15_s() {
        let (start, mut vitals) = begun();
        let done = looks(&mut vitals, start, 1, 14, |_| Signs::default());
        assert_eq!(done, [(5, Beat::Ask), (14, Beat::Dead(Duration::from_secs(14)))]);
    }

    #[test]
    fn an_answer_is_a_sign_of_life() {
        let (start, mut vitals) = begun();
        let answered = |second: u64| Signs { received: second.saturating_sub(2) / 5, ..Signs::default() };
        let done = looks(&mut vitals, start, 1, 100, answered);
        assert!(done.iter().all(|(_, beat)| *beat == Beat::Ask), "{done:?}");
    }

    #[test]
    fn a_link_that_takes_nothing_is_lost_and_a_slow_one_is_not() {
        let (start, mut vitals) = begun();
        let slow = |second: u64| Signs { sent: second / 10, received: second / 4, is_waiting: true };
        assert!(looks(&mut vitals, start, 1, 100, slow).is_empty());
        let (start, mut vitals) = begun();
        // Something else still comes.
        let stuck = |second: u64| Signs { sent: 7, received: second, is_waiting: true };
        let done = looks(&mut vitals, start, 1, 15, stuck);
        assert_eq!(done, [(15, Beat::Dead(Duration::ZERO))]);
    }

    #[test]
    fn after_a_sleep_it_is_asked_at_once_and_given_time() {
        let (start, mut vitals) = begun();
        assert_eq!(looks(&mut vitals, start, 1, 9, |_| Signs::default()), [(5, Beat::Ask)]);
        // The monotonic clock stood still, the other did not.
        vitals.looked.1 -= Duration::from_secs(3600);
        let now = start + Duration::from_secs(10);
        let clock = vitals.looked.1 + Duration::from_secs(3601);
        assert_eq!(vitals.look(now, clock, Signs::default()), Beat::Ask);
        vitals.asked(now);
        let done = looks(&mut vitals, start, 11, 5, |_| Signs::default());
        assert_eq!(done, [(15, Beat::Dead(Duration::from_secs(15)))]);
        // A stopped client: both clocks went on.
        let (start, mut vitals) = begun();
        vitals.asked(start);
        assert_eq!(looks(&mut vitals, start, 60, 1, |_| Signs::default()), [(60, Beat::Ask)]);
        assert_eq!(
            looks(&mut vitals, start, 61, 9, |_| Signs { received: 1, ..Signs::default() }),
            [(66, Beat::Ask)]
        );
    }
}
