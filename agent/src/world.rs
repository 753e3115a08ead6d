//! The app as a shell, an SFTP session or a forward meets it: its process, found anew for each of them, and its root.
//! What is done there is decided elsewhere.

use std::sync::Arc;

use thiserror::Error;

use crate::target::error::TargetError;
use crate::target::find::{self, FindError, Query};
use crate::target::identity::Identity;
use crate::target::root::{SyncRoot, TargetRoot};

#[derive(Debug, Error)]
pub enum WorldError {
    #[error("{0}")]
    Find(FindError),
    #[error("process {pid}")]
    Enter { pid: u32, source: TargetError },
}

impl WorldError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Find(error) => error.hint().map(str::to_owned),
            Self::Enter { source, .. } => source.hint(),
        }
    }
}

/// One app, for as long as its process lives.
#[derive(Clone, Debug)]
pub struct World {
    root: TargetRoot,
    app: Arc<Identity>,
}

impl World {
    /// Finds the app and opens its root, with the ids that open it.
    pub fn open(query: &Query) -> Result<Self, WorldError> {
        let target = find::find(query).map_err(WorldError::Find)?;
        let enter = |source| WorldError::Enter { pid: target.app, source };
        let app = Arc::new(Identity::open(target.app).map_err(enter)?);
        // A supervisor outlives the app that it starts again.
        let holder = match target.supervisor {
            Some(pid) if pid != target.app => Arc::new(Identity::open(pid).map_err(enter)?),
            _ => Arc::clone(&app),
        };
        let root = TargetRoot::open(holder).map_err(enter)?;
        Ok(Self { root, app })
    }

    pub fn app(&self) -> &Arc<Identity> {
        &self.app
    }

    pub fn root(&self) -> &TargetRoot {
        &self.root
    }

    /// The whole of the app's files.
    pub fn files(&self) -> Result<SyncRoot, TargetError> {
        self.root.sync_root(b"/")
    }

    /// Where a client starts: the app's working directory, as the app names it.
    pub fn home(&self) -> Vec<u8> {
        let found = self.app.access().inspect(|| self.app.proc().cwd());
        found.unwrap_or_else(|_| b"/".to_vec())
    }
}
