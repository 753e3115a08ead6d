//! Where a project's Python packages are installed in the app's root: `adder/` here, and `…/site-packages/adder` there.
//!
//! Asks the agent, which looks through the root; what is synced because of it is said before anything is written.

use std::path::{Path, PathBuf};

use devsync_protocol::digest::Digest;
use devsync_protocol::message::{FoundPlace, Place, Reply, Request, Wanted};
use devsync_protocol::path::RelPath;
use tokio::task::block_in_place;

use crate::app::{App, Runtime};
use crate::error::CommandError;
use crate::mapping::{self, Mapping, Plan, Source, Wishes};
use crate::project::Project;
use crate::session::{Call, Handle};

/// Files of one package by which it is looked for.
const FILES: usize = 100;
/// Directories of a package that are looked into for them.
const DEEPEST: usize = 8;

/// Decides what goes where, by what the app's root has.
pub async fn decide(
    handle: &Handle,
    app: &App,
    project: &Project,
    wishes: &Wishes,
) -> Result<Plan, CommandError> {
    let has_loader = match mapping::loader(&app.machine) {
        None => true,
        Some(path) => match handle.call(Call::Exists, &Request::Exists { paths: vec![path] }).await? {
            Reply::Exists { found } => found.first().copied().unwrap_or(true),
            _ => true,
        },
    };
    let mut plan = mapping::decide(app, project, wishes, has_loader)?;
    correct(&mut plan, handle, app, project, wishes).await?;
    Ok(plan)
}

/// Corrects a plan that nobody wished for: packages that are installed go there, and not into the app's working
/// directory.
async fn correct(
    plan: &mut Plan,
    handle: &Handle,
    app: &App,
    project: &Project,
    wishes: &Wishes,
) -> Result<(), CommandError> {
    let is_wished = !wishes.sync.is_empty() || wishes.exe.is_some() || wishes.sync_root.is_some();
    if is_wished || app.runtime() != Runtime::Interpreted("Python") {
        return Ok(());
    }
    let (mut mappings, mut places, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
    for package in &project.packages {
        let files = block_in_place(|| wanted(package));
        let Some(name) = files.first().and_then(|file| first_name(&file.path)) else { continue };
        let found = match handle.call(Call::Search, &Request::Search { files: files.clone() }).await? {
            Reply::Found { places } => places,
            _ => Vec::new(),
        };
        let Some(best) = best(&found, package) else { continue };
        // Beside the working directory's other files it goes with them.
        if Some(&best.dir) == app.cwd.as_ref() {
            return Ok(());
        }
        let Ok(place) = best.dir.join(&name) else { continue };
        if best.same.saturating_mul(2) < best.names || is_tied(&found, best) {
            doubts.push(format!(
                "{} → {place} ({} of {} files are the same)",
                package.display(),
                best.same,
                files.len()
            ));
        }
        places.push(place.to_string());
        mappings.push(Mapping::new(Source::Tree(package.clone()), Place::At(place)));
    }
    if mappings.is_empty() {
        return Ok(());
    }
    (plan.mappings, plan.guessed) = (mappings, false);
    plan.because = format!("{}; its package is installed in {}", plan.because, places.join(", "));
    if !doubts.is_empty() {
        plan.confirm = Some(format!("sync {}?", doubts.join(", ")));
    }
    Ok(())
}

/// The place with most of the files, which is not the project itself: an app of this machine may see that.
fn best<'f>(found: &'f [FoundPlace], package: &Path) -> Option<&'f FoundPlace> {
    let own = package.parent().map(|dir| dir.as_os_str().as_encoded_bytes().to_vec());
    let fits = |place: &&FoundPlace| Some(place.dir.as_bytes()) != own.as_deref() && !place.dir.is_root();
    found.iter().filter(fits).max_by_key(|place| (place.same, place.names))
}

/// True where another place is as good.
fn is_tied(found: &[FoundPlace], best: &FoundPlace) -> bool {
    found.iter().any(|other| other.dir != best.dir && (other.same, other.names) == (best.same, best.names))
}

fn first_name(path: &RelPath) -> Option<RelPath> {
    RelPath::new(path.as_bytes().split(|b| *b == b'/').next()?.to_vec()).ok()
}

/// The package's sources, by their names below the directory that it lies in.
fn wanted(package: &Path) -> Vec<Wanted> {
    let Some(name) = package.file_name() else { return Vec::new() };
    let mut files = Vec::new();
    let mut dirs: Vec<(PathBuf, Vec<u8>, usize)> =
        vec![(package.to_owned(), name.as_encoded_bytes().to_vec(), 0)];
    while let Some((dir, below, depth)) = dirs.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let below = [&below[..], b"/", entry.file_name().as_encoded_bytes()].concat();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEEPEST => dirs.push((path, below, depth + 1)),
                Ok(kind) if kind.is_file() && path.extension().is_some_and(|e| e == "py") => {
                    let content = std::fs::read(&path).ok().map(|bytes| Digest::of(&bytes));
                    let file = RelPath::new(below).ok().zip(content);
                    files.extend(file.map(|(path, digest)| Wanted { path, digest }));
                }
                _ => {}
            }
            if files.len() >= FILES {
                return files;
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use devsync_protocol::path::PodPath;

    use super::*;

    #[test]
    fn a_package_is_looked_for_by_its_sources() {
        let here = tempfile::tempdir().expect("a directory");
        let package = here.path().join("src/adder");
        std::fs::create_dir_all(package.join("views/__pycache__")).expect("made");
        for name in ["__init__.py", "views/add.py", "views/__pycache__/add.pyc", "README"] {
            std::fs::write(package.join(name), name).expect("written");
        }
        let names: Vec<String> = wanted(&package).iter().map(|file| file.path.to_string()).collect();
        assert_eq!(names, ["adder/__init__.py", "adder/views/add.py"]);
    }

    #[test]
    fn the_place_with_most_of_the_same_files_is_the_one() {
        let place =
            |dir: &str, names, same| FoundPlace { dir: PodPath::new(dir).expect("valid"), names, same };
        let found = [place("/usr/lib/python3", 3, 1), place("/venv/lib", 3, 3), place("/src", 3, 3)];
        let best = best(&found, Path::new("/src/adder")).expect("one");
        assert_eq!(best.dir, place("/venv/lib", 0, 0).dir);
        assert!(is_tied(&found, best));
        assert!(!is_tied(&found[..2], best));
    }
}
