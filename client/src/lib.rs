//! devsync's client: watches, maps, diffs and sends; shows what happens.

pub mod transport;
