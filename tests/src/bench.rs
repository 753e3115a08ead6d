//! The benchmark: devsync and its rivals on the same trees in the same run.
