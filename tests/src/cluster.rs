//! A real cluster for the tests: a namespace per test, its objects, its pods' answers, and the way out.
//! Which cluster: that of `DEVSYNC_TEST_CONTEXT`, or of `DEVSYNC_TEST_KUBECONFIG` (`scripts/test cluster` sets it).
//! Never the current context of whoever runs the tests.

pub mod inject;
pub mod kubectl;
pub mod manifests;
pub mod namespace;
pub mod project;
pub mod relay;
pub mod said;
