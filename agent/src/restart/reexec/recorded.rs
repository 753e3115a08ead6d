//! How an app was started: recorded at first sight of it, because programs overwrite their arguments, and the
//! link to a replaced executable changes. Knows nothing of restarts.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::retitled;
use crate::sys::proc::USUAL_UMASK;
use crate::sys::proc_task;

const DELETED: &[u8] = b" (deleted)";

/// What execve needs to start the app again. Paths are those of the app's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The executable; for a script its interpreter.
    pub exe: PathBuf,
    /// The arguments, with the program's own name.
    pub argv: Vec<OsString>,
    /// The environment, `NAME=value` each.
    pub envp: Vec<OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The file mode creation mask.
    pub umask: u32,
    /// What shows that the arguments were written over before; such a process is not restarted from them.
    pub retitled: Option<String>,
}

/// What of a process could not be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot record the {what} of process {pid}")]
pub struct RecordedError {
    /// Which part.
    pub what: &'static str,
    /// Of which process.
    pub pid: i32,
    /// Why.
    pub source: io::Error,
}

impl Recorded {
    /// Records a process; needs the rights that its root needs.
    pub fn of(pid: i32) -> Result<Self, RecordedError> {
        let failed = |what| move |source| RecordedError { what, pid, source };
        let root = proc_task::root_path(pid).map_err(failed("root"))?;
        let exe = proc_task::executable(pid).map_err(failed("executable"))?;
        let cwd = proc_task::working_directory(pid).map_err(failed("working directory"))?;
        let argv = proc_task::arguments(pid).map_err(failed("arguments"))?;
        if argv.is_empty() {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, "it has none: a kernel thread or a zombie");
            return Err(RecordedError { what: "arguments", pid, source });
        }
        Ok(Self {
            exe: inside(&root, &without_deleted(exe)),
            argv,
            envp: proc_task::environment(pid).map_err(failed("environment"))?,
            cwd: inside(&root, &without_deleted(cwd)),
            umask: proc_task::status(pid).map_err(failed("status"))?.umask.unwrap_or(USUAL_UMASK),
            retitled: retitled::evidence(pid).map_err(failed("command line"))?,
        })
    }
}

/// The working directory as the app's root has it; `None` if it was removed.
pub(super) fn working_directory(pid: i32) -> io::Result<Option<PathBuf>> {
    let seen = proc_task::working_directory(pid)?;
    let kept = without_deleted(seen.clone());
    Ok((kept == seen).then_some(inside(&proc_task::root_path(pid)?, &kept)))
}

fn without_deleted(path: PathBuf) -> PathBuf {
    let bytes = path.into_os_string().into_vec();
    let kept = bytes.strip_suffix(DELETED).unwrap_or(&bytes);
    OsStr::from_bytes(kept).into()
}

/// The path below the app's root: /proc shows it from ours when both share a mount namespace.
fn inside(root: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(root) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_recorded() {
        let recorded = Recorded::of(std::process::id() as i32).expect("records");
        assert_eq!(recorded.exe, std::env::current_exe().expect("has one"));
        assert_eq!(recorded.argv, std::env::args_os().collect::<Vec<_>>());
        assert_eq!(recorded.cwd, std::env::current_dir().expect("has one"));
        assert_eq!(recorded.retitled, None);
    }

    #[test]
    fn a_replaced_executable_keeps_its_path() {
        assert_eq!(without_deleted("/app/server (deleted)".into()), Path::new("/app/server"));
        assert_eq!(without_deleted("/app/server".into()), Path::new("/app/server"));
    }

    #[test]
    fn a_path_in_a_changed_root_is_seen_from_there() {
        assert_eq!(inside(Path::new("/srv/root"), Path::new("/srv/root/app")), Path::new("/app"));
        assert_eq!(inside(Path::new("/srv/root"), Path::new("/srv/root")), Path::new("/"));
        assert_eq!(inside(Path::new("/"), Path::new("/app")), Path::new("/app"));
    }
}
