//! What is to be done about the certificates now: decided from what the cluster holds, and from nothing else, so that
//! any replica can go on where another ended.
//!
//! No call fails in a rotation: the next authority is trusted before its certificate is served, and the last one is
//! trusted until every replica serves the next certificate.

use std::time::{Duration, SystemTime};

use super::store::{Store, seconds};

/// How long certificates last, and how they overlap.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub lifetime: Duration,
    /// API servers are given this long to see another caBundle: they do not say when they have.
    pub overlap: Duration,
}

/// The next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing that can be served: a new certificate, at once.
    Make { why: String },
    /// The webhook configuration trusts other authorities than it should.
    Trust,
    /// The next authority is trusted from now on.
    NoteTrust,
    /// The next certificate becomes the one that is served.
    Promote,
    /// If every replica serves the certificate, the last authority goes.
    Forget,
    /// A next certificate.
    Prepare { why: &'static str },
    /// Nothing, for this long.
    Wait(Duration),
}

/// Decides. `bundle`: the caBundle of the webhook configuration; `None` where there is none of that name.
pub(super) fn plan(
    store: &Store,
    bundle: Option<&[u8]>,
    names: &[String],
    now: SystemTime,
    timing: &Timing,
) -> Step {
    if let Err(error) = store.check(names, now) {
        let why = match store.served {
            None => "there is none yet".to_owned(),
            Some(_) => error.to_string(),
        };
        return Step::Make { why };
    }
    if bundle.is_some_and(|bundle| bundle != store.authorities.as_bytes()) {
        return Step::Trust;
    }
    let second = seconds(now);
    if store.next.is_some() {
        let Some(since) = store.trusted else { return Step::NoteTrust };
        let left = (since + timing.overlap.as_secs()).saturating_sub(second);
        return if left == 0 { Step::Promote } else { Step::Wait(Duration::from_secs(left)) };
    }
    if store.trusts() > 1 {
        return Step::Forget;
    }
    if store.asked != store.rotated {
        return Step::Prepare { why: "it was asked for" };
    }
    // A third of its time is left for whatever may go wrong.
    let due =
        store.term.map_or(0, |term| term.until.saturating_sub(term.until.saturating_sub(term.from) / 3));
    match due.saturating_sub(second) {
        0 => Step::Prepare { why: "two thirds of its time are over" },
        left => Step::Wait(Duration::from_secs(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{CertificateError, Pair};
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const TIMING: Timing = Timing { lifetime: DAY, overlap: Duration::from_secs(60) };

    fn names() -> Vec<String> {
        vec!["devsync-injector.x.svc".to_owned()]
    }

    fn step(store: &Store, bundle: Option<&str>, now: SystemTime) -> Step {
        plan(store, bundle.map(str::as_bytes), &names(), now, &TIMING)
    }

    #[test]
    fn a_rotation_goes_its_way_step_by_step() -> Result<(), CertificateError> {
        let now = SystemTime::now();
        let make = || Pair::make(&names(), now, DAY);
        assert!(matches!(step(&Store::default(), Some(""), now), Step::Make { .. }));
        let first = Store::default().made(make()?, now, DAY);
        assert_eq!(step(&first, Some(""), now), Step::Trust);
        assert_eq!(step(&first, Some(&first.authorities), now), Step::Wait(DAY * 2 / 3));
        assert_eq!(step(&first, None, now), Step::Wait(DAY * 2 / 3));
        let later = now + DAY * 2 / 3;
        assert!(matches!(step(&first, Some(&first.authorities), later), Step::Prepare { .. }));
        let asked = Store { asked: Some("now".to_owned()), ..first.clone() };
        assert!(matches!(step(&asked, Some(&first.authorities), now), Step::Prepare { .. }));

        let mut second = asked.prepared(make()?, now, DAY);
        // Trusted first, then served.
        assert_eq!(step(&second, Some(&first.authorities), now), Step::Trust);
        assert_eq!(step(&second, Some(&second.authorities), now), Step::NoteTrust);
        second.trusted = Some(seconds(now));
        assert_eq!(step(&second, Some(&second.authorities), now), Step::Wait(TIMING.overlap));
        assert_eq!(step(&second, Some(&second.authorities), now + TIMING.overlap), Step::Promote);
        let third = second.promoted();
        assert_eq!(step(&third, Some(&third.authorities), now), Step::Forget);
        let last = third.forgotten(&names(), now)?;
        assert_eq!(step(&last, Some(&third.authorities), now), Step::Trust);
        assert!(matches!(step(&last, Some(&last.authorities), now), Step::Wait(_)));
        Ok(())
    }

    #[test]
    fn what_cannot_be_served_is_made_anew() -> Result<(), CertificateError> {
        let now = SystemTime::now();
        let good = Store::default().made(Pair::make(&names(), now, DAY)?, now, DAY);
        let other = Pair::make(&names(), now, DAY)?;
        let elsewhere = Pair::make(&["elsewhere.svc".to_owned()], now, DAY)?;
        let broken = [
            Store { served: None, ..good.clone() },
            Store { authorities: String::new(), ..good.clone() },
            Store { authorities: other.authority, ..good.clone() },
            Store { served: Some(("nonsense".to_owned(), "nonsense".to_owned())), ..good.clone() },
            Store::default().made(elsewhere, now, DAY),
        ];
        for store in broken {
            assert!(matches!(step(&store, None, now), Step::Make { .. }));
        }
        assert!(matches!(step(&good, None, now + 2 * DAY), Step::Make { .. }));
        Ok(())
    }
}
