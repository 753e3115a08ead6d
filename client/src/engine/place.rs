//! A place in the pod that nobody named: it must fit, or another one is looked for.

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{Place, Reply, Request, Wanted};
use devsync_protocol::path::RelPath;
use devsync_protocol::tree::Node;

use super::Engine;
use super::halt::Halt;
use super::root::Work;
use crate::error::CommandError;
use crate::report::Event;
use crate::session::Call;

/// Files by which a place is searched for.
const SEARCH_BY: usize = 100;

impl Engine {
    /// A place that nobody named must hold some of these files; else the pod is searched for the one that does.
    /// Gives what the first root needs, where that came out of it.
    pub(super) async fn check_place(&mut self) -> Result<Option<Work>, Halt> {
        let Some(root) = self.roots.first() else { return Ok(None) };
        if root.is_file() || root.place.is_some() && root.known.0.values().all(Node::is_dir) {
            return Ok(None);
        }
        if root.place.is_some() {
            let work = self.compare(0).await?;
            let root = &self.roots[0];
            let is_file = |node: &&Node| !node.is_dir();
            let there =
                root.held.values().filter(is_file).count() + root.signatures.len() + root.conflicts.len();
            // What differs is there too; where there is nothing at all nothing fits.
            if there > 0 || work.is_empty() {
                return Ok(Some(work));
            }
        }
        self.move_to_found_place().await.map(|()| None)
    }

    async fn move_to_found_place(&mut self) -> Result<(), Halt> {
        let here = crate::dirs::near(&self.roots[0].dir);
        let files = self.search_files();
        let places = match self.handle.call(Call::Search, &Request::Search { files }).await? {
            Reply::Found { places } => places,
            _ => Vec::new(),
        };
        // An app of this machine may see the project's own directory.
        let own = self.roots[0].dir.as_os_str().as_encoded_bytes().to_vec();
        let fits = |p: &&devsync_protocol::message::FoundPlace| !p.dir.is_root() && p.dir.as_bytes() != own;
        let best = places.iter().filter(fits).max_by_key(|p| (p.same, p.names));
        let cwd = self.job.app.cwd.as_ref().map_or_else(|| "not known".to_owned(), ToString::to_string);
        let Some(best) = best.filter(|p| p.names > 0) else {
            return Err(CommandError::usage(format!("nothing in {here} matches what the app has"))
                .cause(format!(
                    "its working directory is {cwd}, and no directory in its root holds these files"
                ))
                .hint("say what goes where: --sync .:/path/in/the/pod")
                .into());
        };
        let fits = format!("{} has {} of these files ({} the same)", best.dir, best.names, best.same);
        let place = best.dir.clone();
        if !self.job.yes {
            let question = format!("nothing here matches {cwd}, but {fits}. Sync {here} → {place}?");
            match crate::ask::confirm(&question).await {
                Some(true) => {}
                Some(false) => return Err(CommandError::new("ended without syncing anything").into()),
                None => {
                    return Err(CommandError::usage(format!("nothing in {here} matches what lies in {cwd}"))
                        .cause(fits)
                        .hint(format!("if that is the place: --sync .:{place}"))
                        .into());
                }
            }
        }
        let id = self.next_root;
        self.next_root += 1;
        let root = &mut self.roots[0];
        root.id = id;
        root.mapping.place = Place::At(place);
        root.signatures.clear();
        root.conflicts.clear();
        let mapping = root.mapping.clone();
        let mut root = self.roots.remove(0);
        // Until it is opened there it is nowhere.
        root.place = None;
        let opened = self.open_in_pod(&mut root).await;
        self.roots.insert(0, root);
        opened?;
        if let Some(first) = self.job.mappings.first_mut() {
            *first = mapping;
        }
        let text =
            self.places().iter().map(|p| format!("{} → {}", p.from, p.to)).collect::<Vec<_>>().join(", ");
        self.reporter.event(&Event::Note { text: format!("syncing {text}"), hint: None });
        Ok(())
    }

    /// Files that tell a place: the larger ones first, since small ones (an empty `__init__.py`) are everywhere.
    fn search_files(&self) -> Vec<Wanted> {
        let files = self.roots[0].known.0.iter().filter_map(|(path, node)| match node {
            Node::File { size, digest, .. } => Some((*size, path, *digest)),
            _ => None,
        });
        let mut files: Vec<(u64, &RelPath, Digest)> = files.collect();
        files.sort_by_key(|(size, path, _)| (std::cmp::Reverse((*size).min(1000)), path.len()));
        let wanted = |(_, path, digest): (u64, &RelPath, Digest)| Wanted { path: path.clone(), digest };
        files.into_iter().take(SEARCH_BY).map(wanted).collect()
    }
}
