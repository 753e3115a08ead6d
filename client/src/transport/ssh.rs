//! Placeholder until the SSH transport is merged.
