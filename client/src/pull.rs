//! Files from the pod to the laptop. The pod may be hostile: it names paths only below what was asked for, never
//! leads through a link, and sends as many bytes as it announced.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use devsync_protocol::digest::{Digest, Hasher};
use devsync_protocol::message::{MAX_ENTRIES, Place, Reply, Request, RootId, RootOptions, node_in_bounds};
use devsync_protocol::path::{PathError, PodPath, RelPath};
use devsync_protocol::tree::{Entry, Node};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::task::block_in_place;

use crate::error::CommandError;
use crate::local::platform;
use crate::session::{Answers, Call, Handle};

/// What is pulled, and where it is put.
pub struct Wish {
    /// A number for a sync root that this session has not used.
    pub root: RootId,
    /// As the user wrote it: absolute, or relative to the app's working directory.
    pub path: String,
    pub into: PathBuf,
    pub overwrite: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pulled {
    pub files: u64,
    pub bytes: u64,
    /// `path: why`, of what was left out.
    pub skipped: Vec<String>,
}

/// Bytes that the names of what is pulled may take here.
const BUDGET: usize = 512 << 20;
/// More things left out than this are not named.
const NAMED: usize = 10_000;

impl Pulled {
    fn skip(&mut self, text: String) {
        match self.skipped.len() {
            0..NAMED => self.skipped.push(text),
            NAMED => self.skipped.push("more than can be named here".to_owned()),
            _ => {}
        }
    }
}

fn weight(entry: &Entry) -> usize {
    let link = match &entry.node {
        Node::Symlink { target } => target.len(),
        _ => 0,
    };
    // The path is kept twice.
    2 * entry.path.as_bytes().len() + link + 64
}

/// True for `.git` by any of the names that some file system takes for it.
fn is_git(name: &[u8]) -> bool {
    let name: Vec<u8> = name.iter().copied().filter(u8::is_ascii).collect();
    let end = name.iter().rposition(|b| !matches!(b, b'.' | b' ')).map_or(0, |last| last + 1);
    name[..end].eq_ignore_ascii_case(b".git") || name.eq_ignore_ascii_case(b"git~1")
}

#[derive(Debug, Error)]
pub enum PullError {
    #[error("{path} is no path in the pod")]
    Path { path: String, source: PathError },
    #[error("the pod sent {path}, which was not asked for")]
    NotAsked { path: String },
    #[error("the pod sent other bytes for {path} than it announced")]
    Torn { path: String },
    #[error("the pod sent more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("the directory {dir} cannot be opened", dir = dir.display())]
    Into { dir: PathBuf, source: io::Error },
    #[error("{path} cannot be written")]
    Write { path: String, source: io::Error },
}

/// Where `path` lies: the place to open, and the name in it; `None` is the place itself.
fn locate(path: &str) -> Result<(Place, Option<RelPath>), PathError> {
    let trimmed = path.trim_start_matches("./").trim_end_matches('/');
    if path.starts_with('/') {
        let pod = PodPath::new(path)?;
        return Ok(match pod.split() {
            Some((dir, name)) => (Place::At(dir), Some(name)),
            None => (Place::At(pod), None),
        });
    }
    if trimmed.is_empty() || trimmed == "." {
        return Ok((Place::Cwd, None));
    }
    let below = RelPath::new(trimmed)?;
    let name = RelPath::new(below.name())?;
    Ok((below.parent().map_or(Place::Cwd, Place::BelowCwd), Some(name)))
}

pub async fn pull(handle: &Handle, wish: Wish) -> Result<Pulled, CommandError> {
    let bad =
        |source| PullError::Path { path: devsync_protocol::path::display(wish.path.as_bytes()), source };
    let (place, path) = locate(&wish.path).map_err(|e| {
        CommandError::of(bad(e))
            .kind(crate::error::Kind::Usage)
            .hint("absolute, or relative to the app's directory")
    })?;
    let into = |source| PullError::Into { dir: wish.into.clone(), source };
    let dir =
        Dir::open_ambient_dir(&wish.into, ambient_authority()).map_err(into).map_err(CommandError::of)?;
    let options = RootOptions { dry_run: true, ..RootOptions::default() };
    handle.call(Call::Open, &Request::Open { root: wish.root, place, options }).await?;
    let request = Request::Pull { root: wish.root, path: path.clone() };
    let answers = handle.ask(Call::Pull, &request).await?;
    let target = Target { dir, asked: path, overwrite: wish.overwrite };
    receive(answers, target).await
}

/// Where the files go.
struct Target {
    dir: Dir,
    /// What was asked for; everything must be it or lie below it.
    asked: Option<RelPath>,
    overwrite: bool,
}

async fn receive(mut answers: Answers, target: Target) -> Result<Pulled, CommandError> {
    let mut pulled = Pulled::default();
    let mut links = Vec::new();
    let mut seen = BTreeSet::new();
    let mut budget = BUDGET;
    loop {
        let entry = match answers.next().await? {
            Reply::PullEntry(entry) => entry,
            Reply::PullEnd { skipped } => {
                skipped.into_iter().for_each(|skipped| pulled.skip(skipped));
                break;
            }
            other => return Err(answers.unexpected(&other).into()),
        };
        target.check(&entry).map_err(CommandError::of)?;
        budget = budget.saturating_sub(weight(&entry));
        if budget == 0 || seen.len() >= MAX_ENTRIES || !seen.insert(entry.path.clone()) {
            return Err(CommandError::of(PullError::TooMany));
        }
        let Entry { path, node } = entry;
        let refused = target.git_dir(&path);
        if let Some(dir) = &refused {
            let text = format!(
                "{dir}: a .git directory is only pulled by its own path, since its hooks would run here"
            );
            if pulled.skipped.last() != Some(&text) {
                pulled.skip(text);
            }
        }
        match node {
            Node::Dir { .. } | Node::Symlink { .. } if refused.is_some() => {}
            Node::Dir { .. } => {
                block_in_place(|| target.make_dir(&path, &mut pulled)).map_err(CommandError::of)?;
            }
            // Last, so that nothing is ever written through one.
            Node::Symlink { target } => links.push((path, target)),
            Node::File { mode, size, digest } => {
                let file = Announced { path, mode, size, digest, refused: refused.is_some() };
                target.receive_file(&mut answers, file, &mut pulled).await?;
            }
        }
    }
    for (path, link) in links {
        block_in_place(|| target.make_link(&path, &link, &mut pulled)).map_err(CommandError::of)?;
    }
    Ok(pulled)
}

struct Announced {
    path: RelPath,
    mode: u16,
    size: u64,
    digest: Digest,
    /// Its bytes are read and forgotten.
    refused: bool,
}

impl Target {
    fn check(&self, entry: &Entry) -> Result<(), PullError> {
        let asked = self.asked.as_ref().is_none_or(|asked| entry.path.is_within(asked));
        match asked && node_in_bounds(&entry.node) {
            true => Ok(()),
            false => Err(PullError::NotAsked { path: entry.path.to_string() }),
        }
    }

    /// The path of the git directory that holds `path`, unless it was asked for: its hooks would run here.
    fn git_dir(&self, path: &RelPath) -> Option<String> {
        let in_git = |path: &RelPath| path.as_bytes().split(|b| *b == b'/').position(is_git);
        if self.asked.as_ref().is_some_and(|asked| in_git(asked).is_some()) {
            return None;
        }
        let names = in_git(path)? + 1;
        let shown = path.as_bytes().split(|b| *b == b'/').take(names).collect::<Vec<_>>().join(&b'/');
        Some(devsync_protocol::path::display(&shown))
    }

    /// The directory that holds `path`: every name on the way is a directory, none a link.
    fn parent(&self, path: &RelPath) -> io::Result<(Dir, PathBuf)> {
        let mut dir = self.dir.try_clone()?;
        let mut names: Vec<&[u8]> = path.as_bytes().split(|b| *b == b'/').collect();
        let leaf = names.pop().unwrap_or_default();
        for name in names {
            let name = platform::bytes_to_path(name);
            match dir.symlink_metadata(&name) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(io::Error::other(format!("{} is no directory here", name.display()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => dir.create_dir(&name)?,
                Err(error) => return Err(error),
            }
            dir = dir.open_dir(&name)?;
        }
        Ok((dir, platform::bytes_to_path(leaf)))
    }

    fn make_dir(&self, path: &RelPath, pulled: &mut Pulled) -> Result<(), PullError> {
        let (dir, name) = self.parent(path).map_err(write_error(path))?;
        match dir.symlink_metadata(&name) {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => {
                pulled.skip(format!("{path}: it is no directory here"));
                Ok(())
            }
            Err(_) => dir.create_dir(&name).map_err(write_error(path)),
        }
    }

    /// True where something that must not be replaced is there already; says so.
    fn is_taken(&self, dir: &Dir, name: &Path, path: &RelPath, pulled: &mut Pulled) -> bool {
        let why = match dir.symlink_metadata(name) {
            Err(_) => return false,
            Ok(meta) if meta.is_dir() => "it is a directory here",
            Ok(_) if self.overwrite => return false,
            Ok(_) => "it is here already (--overwrite replaces it)",
        };
        pulled.skip(format!("{path}: {why}"));
        true
    }

    async fn receive_file(
        &self,
        answers: &mut Answers,
        file: Announced,
        pulled: &mut Pulled,
    ) -> Result<(), CommandError> {
        let Announced { path, mode, size, digest, refused } = file;
        let wrong = |e| CommandError::of(write_error(&path)(e));
        let mut place = None;
        if !refused {
            let (dir, name) = block_in_place(|| self.parent(&path)).map_err(wrong)?;
            if !self.is_taken(&dir, &name, &path, pulled) {
                place = Some((block_in_place(|| Temp::new(&dir)).map_err(wrong)?, name));
            }
        }
        let (mut left, mut hasher) = (size, Hasher::new());
        while left > 0 {
            let piece = match answers.next().await? {
                Reply::PullData(piece) => piece,
                other => return Err(answers.unexpected(&other).into()),
            };
            let len = piece.len() as u64;
            if len == 0 || len > left {
                return Err(CommandError::of(PullError::Torn { path: path.to_string() }));
            }
            left -= len;
            hasher.update(&piece);
            if let Some((temp, _)) = &mut place {
                block_in_place(|| temp.file.write_all(&piece)).map_err(wrong)?;
            }
        }
        let Some((temp, name)) = place else { return Ok(()) };
        if hasher.finish() != digest {
            pulled.skip(format!("{path}: it changed while it was read"));
            return Ok(());
        }
        block_in_place(|| temp.place(&name, mode)).map_err(wrong)?;
        pulled.files += 1;
        pulled.bytes += size;
        Ok(())
    }

    /// A link that leads out of what was pulled is left out.
    fn make_link(&self, path: &RelPath, link: &[u8], pulled: &mut Pulled) -> Result<(), PullError> {
        if !stays_inside(path, link, self.asked.as_ref()) {
            let link = devsync_protocol::path::display(link);
            pulled.skip(format!("{path}: it is a link that leads out ({link})"));
            return Ok(());
        }
        let (dir, name) = self.parent(path).map_err(write_error(path))?;
        if self.is_taken(&dir, &name, path, pulled) {
            return Ok(());
        }
        let _ = dir.remove_file(&name);
        #[cfg(unix)]
        dir.symlink(platform::bytes_to_path(link), &name).map_err(write_error(path))?;
        #[cfg(not(unix))]
        pulled.skip(format!("{path}: links are not made on this system"));
        pulled.files += u64::from(cfg!(unix));
        Ok(())
    }
}

/// True for a relative link which never leaves what was asked for, whatever the names on its way are.
fn stays_inside(path: &RelPath, link: &[u8], asked: Option<&RelPath>) -> bool {
    if link.first() == Some(&b'/') {
        return false;
    }
    let depth = |path: &RelPath| path.as_bytes().iter().filter(|b| **b == b'/').count();
    // Names between the asked directory and the link.
    let mut depth = match asked {
        None => depth(path) as i64,
        Some(asked) => depth(path) as i64 - depth(asked) as i64 - 1,
    };
    if depth < 0 {
        return false;
    }
    let mut named = false;
    for name in link.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            // Behind a name that may itself be a link, `..` leads anywhere.
            b".." if named => return false,
            b".." => depth -= 1,
            _ => named = true,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

fn write_error(path: &RelPath) -> impl Fn(io::Error) -> PullError + '_ {
    move |source| PullError::Write { path: path.to_string(), source }
}

/// A file under way, removed unless it is placed.
struct Temp {
    dir: Dir,
    name: Option<PathBuf>,
    file: cap_std::fs::File,
}

impl Temp {
    fn new(dir: &Dir) -> io::Result<Self> {
        for n in 0..1000u32 {
            let name = PathBuf::from(format!(".devsync-pull-{}-{n}", std::process::id()));
            match dir.open_with(&name, OpenOptions::new().write(true).create_new(true)) {
                Ok(file) => return Ok(Self { dir: dir.try_clone()?, name: Some(name), file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("no name is free for a temporary file"))
    }

    fn place(mut self, name: &Path, mode: u16) -> io::Result<()> {
        #[cfg(unix)]
        {
            use cap_std::fs::PermissionsExt;
            // Made under the umask; who may read it may also run it.
            let own = self.file.metadata()?.permissions().mode() & 0o666;
            let mode = if mode & 0o100 != 0 { own | (own & 0o444) >> 2 } else { own };
            self.file.set_permissions(cap_std::fs::Permissions::from_mode(mode))?;
        }
        let _ = mode;
        if let Some(temp) = &self.name {
            self.dir.rename(temp, &self.dir, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = self.dir.remove_file(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).expect("valid")
    }

    fn target(dir: &Path, asked: &str) -> Target {
        let dir = Dir::open_ambient_dir(dir, ambient_authority()).expect("a directory");
        Target { dir, asked: Some(rel(asked)), overwrite: false }
    }

    #[test]
    fn a_path_is_a_place_and_a_name() {
        let at = |path: &str| Place::At(PodPath::new(path).expect("valid"));
        assert_eq!(locate("/srv/app/x.py"), Ok((at("/srv/app"), Some(rel("x.py")))));
        assert_eq!(locate("/srv/"), Ok((at("/"), Some(rel("srv")))));
        assert_eq!(locate("x.py"), Ok((Place::Cwd, Some(rel("x.py")))));
        assert_eq!(locate("./a/b"), Ok((Place::BelowCwd(rel("a")), Some(rel("b")))));
        assert_eq!(locate("."), Ok((Place::Cwd, None)));
        assert!(locate("../x").is_err() && locate("/a/../b").is_err());
    }

    #[test]
    fn links_stay_inside_what_was_asked_for() {
        let asked = rel("app");
        let inside = |path: &str, link: &str| stays_inside(&rel(path), link.as_bytes(), Some(&asked));
        assert!(inside("app/a", "b") && inside("app/x/a", "../b") && inside("app/x/a", "./../y/b"));
        assert!(!inside("app/l2", "d/e/l1/../../x"), "l1 may be a link");
        assert!(!inside("app/a", "../b") && !inside("app/x/a", "../../b") && !inside("app/a", "/etc/passwd"));
        assert!(!inside("app", "b"));
        assert!(!inside("app/x/a", "../../app/b"), "leaves and comes back");
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = target(dir.path(), "app");
        let entry = |path: &str| Entry { path: rel(path), node: Node::Dir { mode: 0o755 } };
        assert!(target.check(&entry("app/x")).is_ok());
        assert!(target.check(&entry("apple")).is_err());
        assert!(target.check(&entry(".ssh")).is_err());
    }

    #[test]
    fn a_git_directory_is_pulled_only_by_its_own_path() {
        let dir = tempfile::tempdir().expect("a directory");
        let of = |asked: &str, path: &str| target(dir.path(), asked).git_dir(&rel(path));
        assert_eq!(of("app", "app/x/.GIT/hooks/post-checkout").as_deref(), Some("app/x/.GIT"));
        assert!(of("app", "app/.git. ").is_some() && of("app", "app/.g\u{200c}it/x").is_some());
        assert!(of("app", "app/.gitignore").is_none() && of("app", "app/git/x").is_none());
        assert_eq!(of(".git", ".git/config"), None);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let outside = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("app")).expect("made");
        std::os::unix::fs::symlink(outside.path(), dir.path().join("app/out")).expect("made");
        std::os::unix::fs::symlink(".", dir.path().join("app/here")).expect("made");
        let target = target(dir.path(), "app");
        assert!(target.parent(&rel("app/out/x")).is_err());
        assert!(target.parent(&rel("app/here/x")).is_err());
        let mut pulled = Pulled::default();
        target.make_dir(&rel("app/out"), &mut pulled).expect("skipped");
        assert_eq!(pulled.skipped, ["app/out: it is no directory here"]);
    }

    #[test]
    fn a_temporary_file_goes_unless_it_is_placed() {
        let dir = tempfile::tempdir().expect("a directory");
        let target = target(dir.path(), "f");
        drop(Temp::new(&target.dir).expect("a file"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
        Temp::new(&target.dir).expect("a file").place(Path::new("f"), 0o755).expect("placed");
        assert!(dir.path().join("f").is_file());
        let mut pulled = Pulled::default();
        assert!(target.is_taken(&target.dir, Path::new("f"), &rel("f"), &mut pulled));
    }
}
