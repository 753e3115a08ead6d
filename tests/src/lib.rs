//! What the end-to-end tests, the benchmark and the demo share: real processes in real namespaces.
//! No test lives here; nothing here is part of the product.

pub mod app;
pub mod attach;
pub mod bench;
pub mod cluster;
pub mod debugger;
pub mod demo;
pub mod policy;
