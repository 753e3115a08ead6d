//! What goes where: from what the user says, what the app is and what the directory holds. Pure.

use std::path::{Path, PathBuf};

use devsync_protocol::contract::annotation;
use devsync_protocol::message::Place;
use devsync_protocol::path::{PathError, PodPath, RelPath, display};
use devsync_protocol::restart::RestartMode;
use thiserror::Error;

use crate::app::{App, Runtime};
use crate::build::Build;
use crate::cli::SyncSpec;
use crate::cluster::PodTarget;
use crate::error::CommandError;
use crate::project::Project;

mod compile;

/// One sync root: files here, and their place in the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub source: Source,
    pub place: Place,
    /// Counts although an ignore file hides it: what the app runs of a build's output.
    pub keeps: Vec<RelPath>,
}

impl Mapping {
    pub fn new(source: Source, place: Place) -> Self {
        Self { source, place, keeps: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory and what is below it.
    Tree(PathBuf),
    /// One file, and its name in the place.
    File { path: PathBuf, name: RelPath },
}

/// What a session will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub mappings: Vec<Mapping>,
    pub build: Option<Build>,
    /// The mode of files that no restart rule is about.
    pub restart: RestartMode,
    /// The file here that the app should be running.
    pub exe: Option<PathBuf>,
    /// The mapping was not named by the user, so it must be seen to fit before anything is written.
    pub guessed: bool,
    /// Asked before anything is written.
    pub confirm: Option<String>,
    /// Why it is as it is, for the line that says it.
    pub because: String,
}

/// What the user said about it.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub sync: Vec<SyncSpec>,
    pub exe: Option<PathBuf>,
    pub build: Option<String>,
    /// Where the pod itself says that files go, and how its app is restarted: what is neither on the command line nor in
    /// devsync.toml.
    pub sync_root: Option<PodPath>,
    pub restart: Option<RestartMode>,
}

impl Wishes {
    /// The same with what the pod says.
    #[must_use]
    pub fn of_pod(&self, pod: Option<&PodTarget>) -> Self {
        let (sync_root, restart) = pod.map(|pod| (pod.sync_root(), pod.restart())).unwrap_or_default();
        Self { sync_root, restart, ..self.clone() }
    }
}

#[derive(Debug, Error)]
pub enum MappingError {
    #[error("--sync {from}: there is no such file or directory", from = from.display())]
    NoSource { from: PathBuf },
    #[error("--sync {from}:{to}: the place in the pod is not a path", from = from.display())]
    Place { from: PathBuf, to: String, source: PathError },
    #[error("the app's executable is not known, so --exe has no place to go")]
    NoExe,
    #[error("--exe {file} would replace {exe}, which only runs {app}", file = file.display())]
    Interpreter { file: PathBuf, exe: PodPath, app: String },
    #[error("this directory is no project that fits {app}, and its working directory is {cwd}")]
    Nothing { app: String, cwd: String },
    #[error("the project builds {what}, and none of them is called {exe}")]
    Which { what: String, exe: String },
    #[error("no jar was built here that could be {jar}")]
    NoJar { jar: String },
}

impl From<MappingError> for CommandError {
    fn from(error: MappingError) -> Self {
        let hint = match &error {
            MappingError::NoSource { .. } => None,
            MappingError::Place { .. } => {
                Some("an absolute path, or one relative to the app's working directory")
            }
            MappingError::NoExe => Some("say the place: --sync FILE:/path/in/the/pod"),
            MappingError::Interpreter { .. } => Some("sources go with --sync FROM:TO"),
            MappingError::Nothing { .. } => Some("say what goes where: --sync .:/path/in/the/pod"),
            MappingError::Which { .. } => Some("say which: --build CMD --exe FILE"),
            MappingError::NoJar { .. } => Some("build it first, or say which: --sync FILE:/path/to/the.jar"),
        };
        CommandError::of(error).kind(crate::error::Kind::Usage).hint_opt(hint.map(str::to_owned))
    }
}

/// Decides what goes where. `has_loader`: the app's root has the dynamic loader of its machine.
pub fn decide(app: &App, project: &Project, wishes: &Wishes, has_loader: bool) -> Result<Plan, MappingError> {
    let mut plan = match wishes.sync.is_empty() && wishes.exe.is_none() {
        true => by_what_is_found(app, project, wishes, has_loader)?,
        false => as_told(app, wishes)?,
    };
    if let Some(restart) = &wishes.restart {
        plan.restart = restart.clone();
    }
    if let Some(word) = app.reloads_itself()
        && plan.restart == RestartMode::Auto
    {
        plan.restart = RestartMode::None;
        plan.because = format!("{}; it reloads itself ({word})", plan.because);
    }
    if let Some(command) = &wishes.build {
        plan.build = Some(Build::shell(command, &project.dir));
    }
    Ok(plan)
}

fn as_told(app: &App, wishes: &Wishes) -> Result<Plan, MappingError> {
    let mut mappings = Vec::new();
    for spec in &wishes.sync {
        mappings.push(explicit(spec)?);
    }
    if let Some(path) = &wishes.exe {
        refuse_interpreter(app, path)?;
        mappings.push(executable(app, path)?);
    }
    Ok(Plan {
        mappings,
        build: None,
        restart: RestartMode::Auto,
        exe: wishes.exe.clone(),
        guessed: false,
        confirm: None,
        because: "as you say".to_owned(),
    })
}

/// A program goes over an interpreter only where it has its name: then it is the interpreter that is worked on.
fn refuse_interpreter(app: &App, path: &Path) -> Result<(), MappingError> {
    let same_name = path.file_name().is_some_and(|name| name.to_string_lossy() == app.exe_name());
    match &app.exe {
        Some(exe) if app.runtime() != Runtime::Native && !same_name => {
            Err(MappingError::Interpreter { file: path.to_owned(), exe: exe.clone(), app: app.name() })
        }
        _ => Ok(()),
    }
}

/// `--exe FILE`, or a build's output, over the app's executable.
fn executable(app: &App, path: &Path) -> Result<Mapping, MappingError> {
    let (dir, name) = app.exe.as_ref().and_then(PodPath::split).ok_or(MappingError::NoExe)?;
    Ok(Mapping::new(Source::File { path: path.to_owned(), name }, Place::At(dir)))
}

fn explicit(spec: &SyncSpec) -> Result<Mapping, MappingError> {
    let from = &spec.from;
    let is_dir = match std::fs::metadata(from) {
        Ok(metadata) => metadata.is_dir(),
        Err(_) => return Err(MappingError::NoSource { from: from.clone() }),
    };
    let bad = |to: &str| {
        let (from, to) = (from.clone(), display(to.as_bytes()));
        move |source| MappingError::Place { from, to, source }
    };
    let to = spec.to.as_deref().unwrap_or(".");
    if is_dir {
        return Ok(Mapping::new(Source::Tree(from.clone()), place(to).map_err(bad(to))?));
    }
    let own_name = from.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default();
    let (dir, name) = match to.rsplit_once('/') {
        _ if to == "." => (".", own_name),
        Some((dir, "")) => (if dir.is_empty() { "/" } else { dir }, own_name),
        Some(("", name)) => ("/", name.as_bytes().to_vec()),
        Some((dir, name)) => (dir, name.as_bytes().to_vec()),
        None => (".", to.as_bytes().to_vec()),
    };
    let name = RelPath::new(name).map_err(bad(to))?;
    Ok(Mapping::new(Source::File { path: from.clone(), name }, place(dir).map_err(bad(to))?))
}

/// A directory in the pod as a user writes it.
fn place(to: &str) -> Result<Place, PathError> {
    if to.starts_with('/') {
        return PodPath::new(to).map(Place::At);
    }
    let below = to.trim_end_matches('/').trim_start_matches("./");
    match below {
        "" | "." => Ok(Place::Cwd),
        below => RelPath::new(below).map(Place::BelowCwd),
    }
}

fn by_what_is_found(
    app: &App,
    project: &Project,
    wishes: &Wishes,
    has_loader: bool,
) -> Result<Plan, MappingError> {
    let tree = |because: String| match &wishes.sync_root {
        Some(root) => Ok(said_by_pod(app, project, root, because)),
        None => tree(app, project, because),
    };
    match app.runtime() {
        Runtime::Interpreted(language) => tree(format!("a {language} app")),
        Runtime::Jar(jar) => built_jar(app, project, &jar),
        Runtime::Native if project.cargo.is_some() || project.go.is_some() => {
            compiled(app, project, has_loader)
        }
        Runtime::Native => tree("a program whose sources are not here".to_owned()),
    }
}

/// The directory over the place that the pod's annotation names.
fn said_by_pod(app: &App, project: &Project, root: &PodPath, because: String) -> Plan {
    let keeps = output_that_runs(app, project).into_iter().collect();
    let source = Source::Tree(project.dir.clone());
    Plan {
        mappings: vec![Mapping { source, place: Place::At(root.clone()), keeps }],
        build: None,
        restart: RestartMode::Auto,
        exe: None,
        guessed: false,
        confirm: None,
        because: format!("{because}, and its pod says {}", annotation::SYNC_ROOT),
    }
}

/// The directory over the app's working directory; over `/` never.
fn tree(app: &App, project: &Project, because: String) -> Result<Plan, MappingError> {
    let place = match &app.cwd {
        Some(cwd) if !cwd.is_root() => Place::Cwd,
        Some(_) => Place::At(PodPath::new("/").map_err(|_| MappingError::NoExe)?),
        None => return Err(MappingError::Nothing { app: app.name(), cwd: "not known".to_owned() }),
    };
    let keeps = output_that_runs(app, project).into_iter().collect();
    Ok(Plan {
        mappings: vec![Mapping { source: Source::Tree(project.dir.clone()), place, keeps }],
        build: None,
        restart: RestartMode::Auto,
        exe: None,
        guessed: true,
        confirm: None,
        because,
    })
}

/// The directory here of the script that the app runs: `dist` of `node dist/server.js`, which ignore files usually hide.
fn output_that_runs(app: &App, project: &Project) -> Option<RelPath> {
    let script = app.script()?;
    let below = match (script.strip_prefix('/'), &app.cwd) {
        (Some(_), Some(cwd)) => {
            script.strip_prefix(&format!("{}/", cwd.to_string().trim_end_matches('/')))?
        }
        (Some(_), None) => return None,
        (None, _) => script.trim_start_matches("./"),
    };
    let (dir, _) = below.rsplit_once('/')?;
    let path = RelPath::new(dir).ok()?;
    // What was installed is not what was built.
    let is_own = dir.split('/').all(|name| !name.starts_with('.') && name != "node_modules");
    (is_own && project.dir.join(dir).is_dir()).then_some(path)
}

fn compiled(app: &App, project: &Project, has_loader: bool) -> Result<Plan, MappingError> {
    let compile::Product { name, language, build, output } = compile::product(app, project, has_loader)?;
    let exe = app.exe_name();
    let asks = (name != exe).then(|| {
        let place = app.exe.as_ref().map(PodPath::to_string).unwrap_or_default();
        format!("this project builds {name}, the app runs {place}: replace it by {name}?")
    });
    Ok(Plan {
        mappings: vec![executable(app, &output)?],
        build: Some(build),
        restart: RestartMode::Auto,
        exe: Some(output),
        guessed: false,
        confirm: asks,
        because: format!("a native app and a {language} project"),
    })
}

fn built_jar(app: &App, project: &Project, jar: &str) -> Result<Plan, MappingError> {
    let wanted = Path::new(jar).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let same = |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy() == wanted);
    let only = || (project.jars.len() == 1).then(|| &project.jars[0]);
    let path = project.jars.iter().find(same).or_else(only);
    let path = path.ok_or_else(|| MappingError::NoJar { jar: display(jar.as_bytes()) })?;
    let spec = SyncSpec { from: path.clone(), to: Some(jar.to_owned()) };
    let asks = (!same(&path)).then(|| format!("replace {} by {}?", display(jar.as_bytes()), path.display()));
    let _ = app;
    Ok(Plan {
        mappings: vec![explicit(&spec)?],
        build: None,
        restart: RestartMode::Auto,
        exe: None,
        guessed: false,
        confirm: asks,
        because: "java -jar".to_owned(),
    })
}

/// The dynamic loader that glibc programs for `machine` name, by which a root with one is told from one without.
pub fn loader(machine: &str) -> Option<PodPath> {
    let path = match machine {
        "x86_64" => "/lib64/ld-linux-x86-64.so.2",
        "aarch64" => "/lib/ld-linux-aarch64.so.1",
        _ => return None,
    };
    PodPath::new(path).ok()
}

/// A place as a person writes it, for the line that says what goes where.
pub fn place_words(place: &Place, app: &App) -> String {
    let cwd = app.cwd.as_ref();
    match place {
        Place::Cwd => cwd.map_or_else(|| "the app's directory".to_owned(), PodPath::to_string),
        Place::BelowCwd(below) => {
            let joined = cwd.and_then(|cwd| cwd.join(below).ok());
            joined.map_or_else(|| below.to_string(), |path| path.to_string())
        }
        Place::At(path) => path.to_string(),
    }
}

#[cfg(test)]
mod tests;
