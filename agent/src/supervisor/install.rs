//! Copies an executable into a directory in one step: who looks there sees no copy, or a whole one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use devsync_protocol::contract::RUN_PROGRAM;

/// Other users read and run it, whatever the umask is here.
const MODE: u32 = 0o755;

/// What could not be done, and to which path.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub struct InstallError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError { what, path, source }
}

/// Copies the running program to `dir`, which is made if it is missing; the path of the copy.
pub fn install(dir: &Path) -> Result<PathBuf, InstallError> {
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(MODE))
            .map_err(failed("cannot open to others", dir))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("cannot make the directory", dir)(error)),
    }
    let own = Path::new("/proc/self/exe");
    let from = File::open(own).map_err(failed("cannot read this program,", own))?;
    let to = dir.join(RUN_PROGRAM);
    copy(from, MODE, &to)?;
    Ok(to)
}

/// Copies to a temporary name beside `to`, and renames.
pub(super) fn copy(mut from: File, mode: u32, to: &Path) -> Result<(), InstallError> {
    let temp = to.with_extension("devsync-part");
    // One that was ended while it copied left it.
    match fs::remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("cannot remove what is left at", &temp)(error));
        }
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
        io::copy(&mut from, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))
    })();
    let done = written
        .map_err(failed("cannot write", &temp))
        .and_then(|()| fs::rename(&temp, to).map_err(failed("cannot put into place", to)));
    if done.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temp);
    }
    done
}

impl InstallError {
    pub(super) fn into_io(self) -> io::Error {
        self.source
    }
}
