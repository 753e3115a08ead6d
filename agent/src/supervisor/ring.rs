//! The last bytes that the app wrote, both streams in the order of arrival.

use std::collections::VecDeque;

use super::wire::RING_BYTES;

#[derive(Default)]
pub(crate) struct Ring(VecDeque<u8>);

impl Ring {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(RING_BYTES)..];
        let over = (self.0.len() + bytes.len()).saturating_sub(RING_BYTES);
        self.0.drain(..over);
        self.0.extend(bytes);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_the_tail_of_all_that_was_pushed() {
        let all: Vec<u8> = (0..RING_BYTES * 3 + 17).map(|n| (n % 251) as u8).collect();
        for step in [1000, 4096, RING_BYTES, RING_BYTES * 2 + 5] {
            let mut ring = Ring::default();
            let mut pushed = 0;
            for piece in all.chunks(step) {
                ring.push(piece);
                pushed += piece.len();
                assert_eq!(ring.to_vec(), all[pushed.saturating_sub(RING_BYTES)..pushed]);
            }
        }
    }
}
