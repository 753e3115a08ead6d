//! Compares what the pod really holds with what is here, by digests read anew on both sides.

use std::path::Path;

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Reply, Request, RootId};
use devsync_protocol::path::PodPath;
use devsync_protocol::tree::{Entry, Tree};

use crate::compare::{Budget, compare, entry_weight, needs};
use crate::engine::{Difference, compare_digests};
use crate::error::CommandError;
use crate::local::read::read_within;
use crate::session::{Call, Handle};

/// One sync root as it is here, by the names in the pod.
pub struct Side {
    pub root: RootId,
    pub place: Option<PodPath>,
    pub tree: Tree,
}

/// All differences, of the trees and of the executable that runs.
pub async fn verify(
    handle: &Handle,
    sides: Vec<Side>,
    exe: Option<&Path>,
) -> Result<Vec<Difference>, CommandError> {
    let mut differences = Vec::new();
    let mut running = None;
    for side in &sides {
        let (entries, exe) = digests(handle, side.root).await?;
        running = exe.or(running);
        let shown = |path: &devsync_protocol::path::RelPath| {
            let full = side.place.as_ref().and_then(|place| place.join(path).ok());
            full.map_or_else(|| path.to_string(), |full| full.to_string())
        };
        differences.extend(compare_digests(&side.tree, &entries, shown));
    }
    if let Some(exe) = exe {
        differences.extend(compare_exe(exe, running)?);
    }
    Ok(differences)
}

fn compare_exe(exe: &Path, running: Option<Digest>) -> Result<Option<Difference>, CommandError> {
    let here = tokio::task::block_in_place(|| read_within(exe, 0)).map_err(CommandError::of)?;
    let path = "the running executable".to_owned();
    Ok(match running {
        Some(running) if running == here.digest => None,
        Some(_) => Some(Difference { path, what: format!("is not {}: restart the app", exe.display()) }),
        None => Some(Difference { path, what: "cannot be read".to_owned() }),
    })
}

async fn digests(handle: &Handle, root: RootId) -> Result<(Vec<Entry>, Option<Digest>), CommandError> {
    let mut answers = handle.ask(Call::Verify, &Request::Verify { root }).await?;
    let (mut all, mut running, mut budget) = (Vec::new(), None, Budget::new("verify"));
    loop {
        let Reply::Digests { entries, exe, last, .. } = answers.next().await? else {
            return Ok((all, running));
        };
        budget.take(entries.iter().map(entry_weight))?;
        all.extend(entries);
        running = exe.or(running);
        if last {
            return Ok((all, running));
        }
    }
}

/// Tells the agent what is here, so that it also looks at files which no attach has recorded yet.
pub async fn introduce(handle: &Handle, side: &Side) -> Result<(), CommandError> {
    let dirs = side.tree.dir_digests();
    compare(handle, side.root, &dirs).await?;
    let entries: Vec<_> =
        side.tree.0.iter().map(|(p, n)| Entry { path: p.clone(), node: n.clone() }).collect();
    needs(handle, side.root, &entries).await?;
    Ok(())
}
