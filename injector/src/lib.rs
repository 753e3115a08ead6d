//! Puts devsync into pods: pure functions from a manifest to the same manifest with the agent in it, and back.
