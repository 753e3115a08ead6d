//! The webhook's entry.

fn main() {}
