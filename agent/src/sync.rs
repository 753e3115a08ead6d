//! File work below a sync root: what was written, what must be sent, and batches that appear at once.
//!
//! Everything here is blocking and runs on the session's own thread. Paths are touched only through
//! [`crate::target::root::SyncRoot`].

pub(crate) mod batch;
pub(crate) mod commit;
pub(crate) mod compare;
pub(crate) mod ledger;
pub(crate) mod lock;
pub(crate) mod marks;
pub(crate) mod pull;
pub(crate) mod root;
pub(crate) mod search;
pub(crate) mod stage;
