//! Who an attach is to an agent, from its first connection to its last: a key of its own, and a name made of that key. An
//! agent that has not noticed the loss of a connection knows by them that it is the same client who comes again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey};

use crate::error::CommandError;

/// Of the name, in characters: nobody can guess it.
const NAME: usize = 32;

/// Made at its first use. All clones are one.
#[derive(Clone, Default)]
pub struct Seat(Arc<Mutex<Option<Arc<PrivateKey>>>>);

impl fmt::Debug for Seat {
    /// Nothing of it: it holds a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl Seat {
    pub fn key(&self) -> Result<Arc<PrivateKey>, CommandError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*kept {
            return Ok(Arc::clone(key));
        }
        let made = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519);
        let made =
            made.map_err(|error| CommandError::new("a key for this session cannot be made").cause(error))?;
        Ok(Arc::clone(kept.insert(Arc::new(made))))
    }

    /// What the agent is told.
    pub fn name(&self) -> Result<String, CommandError> {
        let public = self.key()?.public_key().to_openssh();
        let public =
            public.map_err(|error| CommandError::new("this session cannot be named").cause(error))?;
        Ok(blake3::hash(public.as_bytes()).to_hex().chars().take(NAME).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_keeps_its_name_and_no_two_have_the_same() {
        let (one, other) = (Seat::default(), Seat::default());
        let name = |seat: &Seat| seat.name().expect("a name");
        assert_eq!(name(&one), name(&one.clone()));
        assert!(name(&one) != name(&other) && name(&one).len() == NAME);
    }
}
