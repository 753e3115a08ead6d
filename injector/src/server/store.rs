//! The Secret with the certificates: what its keys and annotations mean. All replicas serve what it says, and any of
//! them can go on with a rotation that another began.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use devsync_protocol::contract::ROTATE;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use rustls::sign::CertifiedKey;

use super::certificate::{self, CertificateError, Pair, certified, check};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// What the webhook configuration's caBundle is to hold.
const AUTHORITIES: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
/// When a certificate was made, and until when it is good: `FROM – UNTIL`.
const SERVED: &str = "devsync.dev/served";
const NEXT: &str = "devsync.dev/next";
/// Since when API servers are told to trust the next one.
const TRUSTED: &str = "devsync.dev/next-trusted-since";
/// The value of [`ROTATE`] that the last rotation answered.
const ROTATED: &str = "devsync.dev/rotated";

/// Seconds since 1970: a certificate's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// The Secret's content.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) served: Option<(String, String)>,
    pub(super) next: Option<(String, String)>,
    pub(super) authorities: String,
    pub(super) term: Option<Term>,
    pub(super) next_term: Option<Term>,
    pub(super) trusted: Option<u64>,
    pub(super) asked: Option<String>,
    pub(super) rotated: Option<String>,
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Store {
    /// Reads a Secret; what is not there or no text counts as missing.
    pub(super) fn of(secret: &Secret) -> Self {
        let data = |key: &str| {
            let bytes = &secret.data.as_ref()?.get(key)?.0;
            String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
        };
        let note = |key: &str| secret.metadata.annotations.as_ref()?.get(key).cloned();
        Self {
            served: data(CERTIFICATE).zip(data(KEY)),
            next: data(NEXT_CERTIFICATE).zip(data(NEXT_KEY)),
            authorities: data(AUTHORITIES).unwrap_or_default(),
            term: note(SERVED).and_then(|text| Term::read(&text)),
            next_term: note(NEXT).and_then(|text| Term::read(&text)),
            trusted: note(TRUSTED).and_then(|text| text.parse().ok()),
            asked: note(ROTATE),
            rotated: note(ROTATED),
        }
    }

    /// Writes all of it into a Secret; its other annotations and labels stay.
    pub(super) fn write(&self, secret: &mut Secret) {
        let pairs = [(CERTIFICATE, KEY, &self.served), (NEXT_CERTIFICATE, NEXT_KEY, &self.next)];
        let mut data = BTreeMap::from([(AUTHORITIES.to_owned(), bytes(&self.authorities))]);
        for (certificate, key, pair) in pairs {
            if let Some((c, k)) = pair {
                data.insert(certificate.to_owned(), bytes(c));
                data.insert(key.to_owned(), bytes(k));
            }
        }
        secret.data = Some(data);
        let notes = secret.metadata.annotations.get_or_insert_default();
        let mut note = |key: &str, value: Option<String>| match value {
            Some(value) => drop(notes.insert(key.to_owned(), value)),
            None => drop(notes.remove(key)),
        };
        note(SERVED, self.term.map(Term::text));
        note(NEXT, self.next_term.map(Term::text));
        note(TRUSTED, self.trusted.map(|since| since.to_string()));
        note(ROTATED, self.rotated.clone());
    }

    /// What is to be served.
    pub(super) fn certified(&self) -> Result<CertifiedKey, CertificateError> {
        let (certificate, key) = self.served.as_ref().ok_or(CertificateError::Empty(CERTIFICATE))?;
        certified(certificate.as_bytes(), key.as_bytes())
    }

    /// Whether API servers that trust the authorities take it.
    pub(super) fn check(&self, names: &[String], now: SystemTime) -> Result<(), CertificateError> {
        check(&self.certified()?, self.authorities.as_bytes(), names, now)
    }

    /// A certificate made at once, with nothing before it.
    pub(super) fn made(&self, pair: Pair, now: SystemTime, lifetime: Duration) -> Self {
        Self {
            served: Some((pair.certificate, pair.key)),
            authorities: pair.authority,
            term: Some(Term::new(now, lifetime)),
            asked: self.asked.clone(),
            rotated: self.asked.clone(),
            ..Self::default()
        }
    }

    /// A next certificate, whose authority is to be trusted beside the others.
    pub(super) fn prepared(&self, pair: Pair, now: SystemTime, lifetime: Duration) -> Self {
        Self {
            next: Some((pair.certificate, pair.key)),
            authorities: format!("{}{}", pair.authority, self.authorities),
            next_term: Some(Term::new(now, lifetime)),
            trusted: None,
            rotated: self.asked.clone(),
            ..self.clone()
        }
    }

    /// The next certificate is the one that is served from now on.
    pub(super) fn promoted(&self) -> Self {
        Self {
            served: self.next.clone(),
            term: self.next_term,
            next: None,
            next_term: None,
            trusted: None,
            ..self.clone()
        }
    }

    /// Only the authorities of what is served stay trusted.
    pub(super) fn forgotten(&self, names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let served = self.certified()?;
        let mut kept = String::new();
        for pem in self.each_authority() {
            if check(&served, pem.as_bytes(), names, now).is_ok() {
                kept.push_str(&pem);
            }
        }
        Ok(Self { authorities: kept, ..self.clone() })
    }

    /// How many authorities are trusted.
    pub(super) fn trusts(&self) -> usize {
        certificate::certificates(AUTHORITIES, self.authorities.as_bytes()).map_or(0, |all| all.len())
    }

    fn each_authority(&self) -> Vec<String> {
        let end = "-----END CERTIFICATE-----";
        let parts = self.authorities.split_inclusive(end).filter(|part| part.contains(end));
        parts.map(|part| format!("{}\n", part.trim())).collect()
    }
}

impl Term {
    fn new(now: SystemTime, lifetime: Duration) -> Self {
        Self { from: seconds(now), until: seconds(now + lifetime) }
    }

    fn read(text: &str) -> Option<Self> {
        let (from, until) = text.split_once(" – ")?;
        let second = |text: &str| u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok();
        Some(Self { from: second(from)?, until: second(until)? })
    }

    fn text(self) -> String {
        let time = |second: u64| {
            i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default()
        };
        format!("{} – {}", time(self.from), time(self.until))
    }
}

fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_secret_reads_back_through_a_whole_rotation() -> Result<(), CertificateError> {
        let names = vec!["devsync-injector.x.svc".to_owned()];
        let now = SystemTime::now();
        let make = || Pair::make(&names, now, DAY);
        let back = |store: &Store| {
            let mut secret = Secret::default();
            store.write(&mut secret);
            Store::of(&secret)
        };
        let first = Store::default().made(make()?, now, DAY);
        assert!(back(&first) == first);
        first.check(&names, now)?;
        let second = first.prepared(make()?, now, DAY);
        assert!(back(&second) == second && second.trusts() == 2 && second.served == first.served);
        second.check(&names, now)?;
        let third = second.promoted();
        assert!(back(&third) == third && third.trusts() == 2 && third.served == second.next);
        third.check(&names, now)?;
        let last = third.forgotten(&names, now)?;
        assert!(last.trusts() == 1 && last.served == third.served);
        last.check(&names, now)?;
        assert!(Store::of(&Secret::default()) == Store::default());
        Ok(())
    }
}
