//! What a devsync-run starts, while nothing of the app runs that could be looked at: read from its command line.
//! The command line is the pod's word, so what is made of it is a path in the app's root and nothing else.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::supervisor::args::{self, Command, Config};
use crate::supervisor::copy_of;
use crate::target::identity::Identity;
use crate::target::root::TargetRoot;

/// Searched where the container says no PATH, as the C library would.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program that comes, as the app's own process would show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub exe: Vec<u8>,
    pub argv: Vec<Vec<u8>>,
}

/// What the devsync-run behind `supervisor` starts; `None` where its words are not those of a devsync-run.
pub fn program(supervisor: &Identity, root: &TargetRoot) -> Option<Program> {
    let words = supervisor.proc().cmdline().ok()?.into_iter().map(OsString::from_vec);
    let Ok(Command::Run(config)) = args::parse(words.skip(1)) else { return None };
    let cwd = supervisor.access().inspect(|| supervisor.proc().cwd()).ok()?;
    let path = supervisor.access().inspect(|| supervisor.proc().environ()).ok();
    let path = path.into_iter().flatten().find_map(|entry| Some(entry.strip_prefix(b"PATH=")?.to_vec()));
    let exists = |path: &Path| root.open_file(path.as_os_str().as_bytes()).is_ok();
    let exe = executable(&config, Path::new(&OsString::from_vec(cwd)), path.as_deref(), exists)?;
    let argv = config.argv.into_iter().map(OsString::into_vec).collect();
    Some(Program { exe: exe.into_os_string().into_vec(), argv })
}

/// Where the first word leads, as devsync-run will go.
fn executable(
    config: &Config,
    cwd: &Path,
    path: Option<&[u8]>,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let word = Path::new(config.argv.first()?);
    let found = if word.as_os_str().as_bytes().contains(&b'/') {
        plain(&cwd.join(word))
    } else {
        let dirs = path.unwrap_or(DEFAULT_PATH).split(|b| *b == b':');
        let mut places = dirs.map(|dir| plain(&cwd.join(std::ffi::OsStr::from_bytes(dir)).join(word)));
        places.find(|place| exists(place))?
    };
    let copy = config.exec_copy.as_deref().and_then(|dir| copy_of(&found, dir));
    Some(copy.unwrap_or(found))
}

/// Without `.` and `..`, as far as words can tell.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
        plain
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn exe(line: &str) -> Option<PathBuf> {
        let Ok(Command::Run(config)) = args::parse(line.split(' ').map(OsString::from)) else {
            panic!("{line}")
        };
        executable(&config, Path::new("/srv/app"), Some(b"/bin:/usr/bin::/"), |path| {
            ["/usr/bin/python3", "/srv/app/tool", "/adder"].contains(&path.to_str().unwrap())
        })
    }

    #[test]
    fn the_program_is_where_devsync_run_will_find_it() {
        for (line, found) in [
            ("--wait -- /app/adder -v", "/app/adder"),
            ("./adder", "/srv/app/adder"),
            ("../x/../adder", "/srv/adder"),
            ("python3 -m app", "/usr/bin/python3"),
            ("tool", "/srv/app/tool"),
            ("--exec-copy /volume -- /adder", "/volume/adder"),
            ("--exec-copy /volume adder", "/volume/adder"),
            ("--exec-copy /volume /app/adder", "/app/adder"),
        ] {
            assert_eq!(exe(line).unwrap(), Path::new(found), "{line}");
        }
        assert_eq!(exe("nowhere"), None);
    }
}
