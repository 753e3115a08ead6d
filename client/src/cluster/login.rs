//! One login to a cluster for all parts of an attach: a credential plugin may open a browser, so it runs as rarely as can
//! be.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::Cluster;
use crate::cli::ClusterArgs;
use crate::error::CommandError;

/// A login that was made so lately is not the cause of a failure.
const FRESH: Duration = Duration::from_secs(30);

type Kept = Mutex<Option<(Instant, Cluster)>>;

/// Where a cluster's connection came from.
#[derive(Clone)]
pub(super) struct Source {
    kept: Weak<Kept>,
    quiet: bool,
    args: ClusterArgs,
}

impl Source {
    /// Another one from there; none where that fails, which the next request will tell better.
    pub(super) async fn cluster(&self) -> Option<Cluster> {
        Login { kept: self.kept.upgrade()?, quiet: self.quiet }.cluster(&self.args).await.ok()
    }
}

/// The login, made at its first use. All clones are one.
#[derive(Clone, Default)]
pub struct Login {
    kept: Arc<Kept>,
    quiet: bool,
}

impl fmt::Debug for Login {
    /// Nothing of it: it holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    /// One that does not say what is waited for.
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }

    /// The cluster that `args` mean; the first one who asks makes the login, the others wait for it.
    pub async fn cluster(&self, args: &ClusterArgs) -> Result<Cluster, CommandError> {
        let mut kept = self.kept.lock().await;
        if let Some((_, cluster)) = kept.as_ref().filter(|(_, cluster)| !cluster.is_ending()) {
            return Ok(cluster.clone());
        }
        let mut cluster = Cluster::connect(args).await?;
        let source = Source { kept: Arc::downgrade(&self.kept), quiet: self.quiet, args: args.clone() };
        cluster.source = Some(source);
        if self.quiet {
            cluster.progress = |_| {};
        }
        *kept = Some((Instant::now(), cluster.clone()));
        Ok(cluster)
    }

    /// Something failed: the kubeconfig is read anew at the next use, since its server or its credentials may be others
    /// by now.
    pub async fn doubt(&self) {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_some_and(|(made, _)| made.elapsed() >= FRESH) {
            *kept = None;
        }
    }
}
