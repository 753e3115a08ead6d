//! Keys that were registered while the agent runs: in memory, few, forgotten when nobody uses them.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use russh::keys::PublicKey;

use crate::target::find::Query;

/// Keys at once; one more takes the place of the one that was unused for longest.
const MOST: usize = 64;
/// A key that is unused for this long is forgotten.
const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

/// What a registered key is good for.
#[derive(Debug)]
pub struct Grant {
    /// The app that its sessions reach, and no other; the server's own where there is none.
    pub target: Option<Query>,
    /// Who the developer is, as the client says: for people, it decides nothing.
    pub who: String,
    pub since: SystemTime,
    /// The first session ends the one that holds its target, and clears this: a client that connects again with the
    /// same key must not end the one that came after it.
    pub take_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Entry {
    key: PublicKey,
    grant: Arc<Grant>,
    used: Instant,
}

/// The keys. A key is registered for the life of the process at most.
#[derive(Debug, Default)]
pub struct Registered(Mutex<Vec<Entry>>);

impl Registered {
    fn lock(&self, now: Instant) -> MutexGuard<'_, Vec<Entry>> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| now.saturating_duration_since(entry.used) < UNUSED);
        entries
    }

    /// Registers `key`; what it was good for before is over, for logins to come.
    pub fn add(&self, key: PublicKey, grant: Grant, now: Instant) {
        let mut entries = self.lock(now);
        entries.retain(|entry| entry.key.key_data() != key.key_data());
        if entries.len() >= MOST
            && let Some(oldest) = (0..entries.len()).min_by_key(|i| entries.get(*i).map(|e| e.used))
        {
            entries.remove(oldest);
        }
        entries.push(Entry { key, grant: Arc::new(grant), used: now });
    }

    /// What `key` is good for, if it is registered.
    pub(super) fn find(&self, key: &PublicKey, now: Instant) -> Option<Arc<Grant>> {
        let entries = self.lock(now);
        let entry = entries.iter().find(|entry| entry.key.key_data() == key.key_data());
        entry.map(|entry| Arc::clone(&entry.grant))
    }

    /// Its holder logged in, or a session of it ended.
    pub(super) fn used(&self, grant: &Arc<Grant>, now: Instant) {
        if let Some(entry) = self.lock(now).iter_mut().find(|entry| Arc::ptr_eq(&entry.grant, grant)) {
            entry.used = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::key::safe_rng;
    use russh::keys::{Algorithm, PrivateKey};

    fn key() -> PublicKey {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key").public_key().clone()
    }

    fn grant(who: &str) -> Grant {
        Grant { target: None, who: who.to_owned(), since: SystemTime::now(), take_over: Arc::default() }
    }

    fn who(keys: &Registered, key: &PublicKey, now: Instant) -> Option<String> {
        keys.find(key, now).map(|grant| grant.who.clone())
    }

    #[test]
    fn a_key_unused_for_a_day_is_forgotten_and_a_used_one_is_not() {
        let (keys, ann, bob, begin) = (Registered::default(), key(), key(), Instant::now());
        keys.add(ann.clone(), grant("ann"), begin);
        keys.add(bob.clone(), grant("bob"), begin);
        let noon = begin + UNUSED / 2;
        keys.used(&keys.find(&ann, noon).expect("known"), noon);
        assert_eq!(who(&keys, &ann, begin + UNUSED).as_deref(), Some("ann"));
        assert_eq!(who(&keys, &bob, begin + UNUSED), None);
    }

    #[test]
    fn one_too_many_pushes_out_the_one_unused_for_longest() {
        let (keys, begin) = (Registered::default(), Instant::now());
        let all: Vec<PublicKey> = (0..MOST).map(|_| key()).collect();
        for key in &all {
            keys.add(key.clone(), grant("x"), begin);
        }
        let later = begin + Duration::from_secs(1);
        for key in all.iter().skip(1) {
            keys.used(&keys.find(key, later).expect("known"), later);
        }
        keys.add(key(), grant("new"), later);
        assert_eq!(keys.lock(later).len(), MOST);
        assert!(who(&keys, &all[0], later).is_none());
    }

    #[test]
    fn registered_again_it_is_good_for_the_new_alone() {
        let (keys, ann, now) = (Registered::default(), key(), Instant::now());
        keys.add(ann.clone(), grant("first"), now);
        let first = keys.find(&ann, now).expect("known");
        keys.add(ann.clone(), grant("second"), now);
        assert_eq!(who(&keys, &ann, now).as_deref(), Some("second"));
        // The first one's session ends: nothing of the second is prolonged.
        keys.used(&first, now + UNUSED / 2);
        assert_eq!(who(&keys, &ann, now + UNUSED), None);
    }
}
