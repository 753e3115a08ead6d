//! Which paths below a sync root count.
//!
//! In this order, for each name on the way from the root to a path: named explicitly → counts; devsync's own
//! temporary files and `.git` → never; `--exclude`; `.devsyncignore` (either way); `.gitignore` with git's
//! `info/exclude` and global excludes; `.dockerignore`. What lies in a hidden directory is hidden.
//! Answers for one path without a walk: what each directory contributes is read once and kept until
//! [`Rules::invalidate`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use devsync_protocol::path::RelPath;

use super::dockerignore::DockerIgnore;
use super::gitdir::Repo;
use super::ignorefile::{Pattern, Patterns, Says, read_bounded};
use super::platform;

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct RuleOptions {
    /// `--exclude` globs as rsync means them: without a slash the name at any depth; with a leading slash from
    /// the root; with another slash the end of the path; a trailing slash directories only.
    pub excludes: Vec<String>,
    /// Paths that count although a rule hides them (what the user named, build outputs).
    pub includes: Vec<RelPath>,
    /// Nothing but `includes` counts.
    pub only_includes: bool,
    /// `.git` counts too.
    pub with_git: bool,
    /// No ignore file is read: only excludes and includes count.
    pub no_ignore_files: bool,
}

/// Whether a path counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// A directory that is hidden itself, but something in it may count: it is made, and looked into.
    Pass,
    Hide,
}

impl Verdict {
    pub fn is_hidden(self) -> bool {
        self == Verdict::Hide
    }
}

/// The rules of one sync root; cheap to ask from any thread.
#[derive(Debug)]
pub struct Rules {
    root: PathBuf,
    options: RuleOptions,
    excludes: Patterns,
    cache: RwLock<HashMap<Vec<u8>, Arc<DirRules>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Brought back explicitly: `.dockerignore` has no say below.
    Unlocked,
    Hidden,
}

/// What holds in one directory: its own ignore files, and the chain above.
#[derive(Debug)]
pub(crate) struct DirRules {
    above: Option<Arc<DirRules>>,
    /// Length of this directory's path and slash, so that `path[base..]` is relative to it.
    base: usize,
    state: State,
    within_include: bool,
    git: Patterns,
    devsync: Patterns,
    top: Arc<Top>,
}

/// What is read at the root only.
#[derive(Debug, Default)]
struct Top {
    docker: DockerIgnore,
    /// `.gitignore` files of directories above the root, deepest first, each with the root's path from there.
    outer: Vec<(Patterns, Vec<u8>)>,
    /// `info/exclude`, then the global file; paths relative to the repository's top.
    shared: Vec<Patterns>,
    /// The root's path in its repository, with a slash at its end.
    from_top: Vec<u8>,
}

impl Rules {
    /// `root` must be absolute.
    pub fn new(root: &Path, options: RuleOptions) -> Self {
        let text = options.excludes.iter().map(|g| exclude_pattern(g)).collect::<Vec<_>>().join("\n");
        let excludes = Patterns::parse(text.as_bytes());
        Self { root: root.to_path_buf(), options, excludes, cache: RwLock::default() }
    }

    /// Whether `path` counts, given whether it is a directory.
    pub fn verdict(&self, path: &RelPath, is_dir: bool) -> Verdict {
        let dir = self.dir(path.parent().as_ref());
        self.child(&dir, path, is_dir).0
    }

    /// True where a path that is gone may have counted, as a file or as a directory.
    pub fn may_have_counted(&self, path: &RelPath) -> bool {
        !self.verdict(path, false).is_hidden() || !self.verdict(path, true).is_hidden()
    }

    /// True where a change of `path` changes what counts.
    pub fn is_rule_file(&self, path: &RelPath) -> bool {
        !self.options.no_ignore_files
            && match path.name() {
                b".gitignore" | b".devsyncignore" => true,
                b".dockerignore" => path.parent().is_none(),
                _ => false,
            }
    }

    /// Forgets what was read of ignore files.
    pub fn invalidate(&self) {
        self.cache.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What holds in the directory `dir`; `None` is the root.
    pub(crate) fn dir(&self, dir: Option<&RelPath>) -> Arc<DirRules> {
        let key = dir.map_or(&[][..], |d| d.as_bytes());
        if let Some(found) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return found.clone();
        }
        let made = Arc::new(match dir {
            None => self.load_root(),
            Some(dir) => {
                let above = self.dir(dir.parent().as_ref());
                let state = self.child(&above, dir, true).1;
                self.load_dir(dir, above, state)
            }
        });
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        cache.entry(key.to_vec()).or_insert(made).clone()
    }

    /// Whether `path`, an entry of the directory that `dir` stands for, counts.
    pub(crate) fn entry(&self, dir: &DirRules, path: &RelPath, is_dir: bool) -> Verdict {
        self.child(dir, path, is_dir).0
    }

    fn load_root(&self) -> DirRules {
        let read = !self.options.no_ignore_files;
        let top = if read { self.load_top() } else { Top::default() };
        let (git, devsync) = if read { ignore_files(&self.root) } else { Default::default() };
        DirRules {
            above: None,
            base: 0,
            state: State::Open,
            within_include: false,
            git,
            devsync,
            top: Arc::new(top),
        }
    }

    fn load_dir(&self, dir: &RelPath, above: Arc<DirRules>, state: State) -> DirRules {
        let within_include = self.options.includes.iter().any(|i| dir.is_within(i));
        let (git, devsync) = if self.options.no_ignore_files || state == State::Hidden {
            Default::default()
        } else {
            ignore_files(&platform::absolute(&self.root, Some(dir)))
        };
        let top = above.top.clone();
        DirRules { above: Some(above), base: dir.len() + 1, state, within_include, git, devsync, top }
    }

    fn load_top(&self) -> Top {
        let mut top = Top {
            docker: DockerIgnore::parse(&read_bounded(&self.root.join(".dockerignore"))),
            ..Top::default()
        };
        let Some(repo) = Repo::around(&self.root) else {
            top.shared = vec![global_excludes()];
            return top;
        };
        let under = |dir: &Path| {
            let rest = self.root.strip_prefix(dir).ok().and_then(platform::path_bytes).unwrap_or_default();
            if rest.is_empty() { rest } else { [&rest, &b"/"[..]].concat() }
        };
        for dir in self.root.ancestors().skip(1).take_while(|d| d.starts_with(&repo.top)) {
            top.outer.push((Patterns::load(&dir.join(".gitignore")), under(dir)));
        }
        top.from_top = under(&repo.top);
        top.shared = vec![Patterns::load(&repo.info_exclude()), global_excludes()];
        if top.hides_root() {
            // The root was named although its repository ignores it (`--sync dist`): those rules are not meant.
            top.outer.clear();
            top.shared = vec![global_excludes()];
            top.from_top.clear();
        }
        top
    }

    fn child(&self, dir: &DirRules, path: &RelPath, is_dir: bool) -> (Verdict, State) {
        let keep = |state| (Verdict::Keep, state);
        if self.options.includes.contains(path) {
            return keep(State::Unlocked);
        }
        let hide = || {
            let leads = is_dir && self.options.includes.iter().any(|i| i.is_within(path));
            (if leads { Verdict::Pass } else { Verdict::Hide }, State::Hidden)
        };
        if dir.state == State::Hidden
            || is_own(path.name())
            || path.name() == b".git" && !self.options.with_git
            || self.options.only_includes && !dir.within_include
            || self.excludes.says(path, is_dir) == Some(Says::Ignore)
        {
            return hide();
        }
        match dir
            .chain()
            .filter(|d| !d.devsync.is_empty())
            .find_map(|d| d.devsync.says(&path[d.base..], is_dir))
        {
            Some(Says::Ignore) => return hide(),
            Some(Says::Keep) => return keep(State::Unlocked),
            None => {}
        }
        if dir.git_says(path, is_dir) == Some(Says::Ignore) {
            return hide();
        }
        if dir.state == State::Unlocked || !dir.top.docker.hides(path) {
            return keep(dir.state);
        }
        match is_dir && dir.top.docker.may_keep_below(path) {
            true => (Verdict::Pass, State::Open),
            false => hide(),
        }
    }
}

impl DirRules {
    fn chain(&self) -> impl Iterator<Item = &DirRules> {
        std::iter::successors(Some(self), |d| d.above.as_deref())
    }

    fn git_says(&self, path: &[u8], is_dir: bool) -> Option<Says> {
        self.chain()
            .filter(|d| !d.git.is_empty())
            .find_map(|d| d.git.says(&path[d.base..], is_dir))
            .or_else(|| self.top.says(path, is_dir))
    }
}

impl Top {
    fn says(&self, path: &[u8], is_dir: bool) -> Option<Says> {
        let outer = self.outer.iter().filter(|(p, _)| !p.is_empty()).map(|(p, from)| (p, from));
        let shared = self.shared.iter().filter(|p| !p.is_empty()).map(|p| (p, &self.from_top));
        outer.chain(shared).find_map(|(p, from)| p.says(&[from, path].concat(), is_dir))
    }

    /// True where the rules above the root hide the root, a directory above it, or all that could be in it.
    fn hides_root(&self) -> bool {
        if self.from_top.is_empty() {
            return false;
        }
        if self.says(b"devsync-any-name", false) == Some(Says::Ignore) {
            return true;
        }
        let dirs = self.from_top.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(cut, _)| cut);
        dirs.map(|cut| &self.from_top[..cut]).any(|dir| {
            let outer = self.outer.iter().find_map(|(p, from)| {
                // This file's directory, seen from the top, is what `from_top` has more than `from`.
                let skip = self.from_top.len() - from.len();
                (dir.len() > skip).then(|| p.says(&dir[skip..], true)).flatten()
            });
            outer.or_else(|| self.shared.iter().find_map(|p| p.says(dir, true))) == Some(Says::Ignore)
        })
    }
}

fn ignore_files(dir: &Path) -> (Patterns, Patterns) {
    (Patterns::load(&dir.join(".gitignore")), Patterns::load(&dir.join(".devsyncignore")))
}

fn global_excludes() -> Patterns {
    ignore::gitignore::gitconfig_excludes_path().map(|p| Patterns::load(&p)).unwrap_or_default()
}

/// Turns an rsync glob into the gitignore pattern that means the same.
fn exclude_pattern(glob: &str) -> String {
    let inner = glob.strip_suffix('/').unwrap_or(glob);
    if inner.contains('/') && !inner.starts_with('/') {
        format!("**/{glob}")
    } else if glob.starts_with(['#', '!']) {
        format!("\\{glob}")
    } else {
        glob.to_owned()
    }
}

/// `.devsync-` and 16 hex digits: what an agent or this client writes before a rename.
fn is_own(name: &[u8]) -> bool {
    name.strip_prefix(b".devsync-")
        .is_some_and(|rest| rest.len() == 16 && rest.iter().all(|b| b.is_ascii_hexdigit()))
}

/// True where `glob` is one that [`RuleOptions::excludes`] can use.
pub fn is_usable_glob(glob: &str) -> bool {
    !glob.contains('\n') && Pattern::parse(exclude_pattern(glob).as_bytes()).is_some()
}
