//! `--exec-copy`: no volume can cover `/`, so a program that lies there is started from its copy in a volume, where it
//! can be replaced and outlives the container.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::install;
use crate::sys::launch;

/// The copy to start in place of `argv`'s program, made if it is missing; `None` where the program lies elsewhere.
pub(super) fn in_place_of(argv: &[OsString], dir: &Path) -> io::Result<Option<PathBuf>> {
    let Some(program) = argv.first() else { return Ok(None) };
    let cwd = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let places: Vec<PathBuf> = launch::search(program).into_iter().map(|path| cwd.join(path)).collect();
    let copies = |path: &PathBuf| copy_of(path, dir);
    // The image's program may be gone where its copy is not.
    let found = places.iter().find(|path| path.is_file() || copies(path).is_some_and(|copy| copy.is_file()));
    let Some((program, copy)) = found.and_then(|path| Some((path, copies(path)?))) else { return Ok(None) };
    if !copy.exists() {
        let file = File::open(program)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        install::copy(file, mode, &copy).map_err(install::InstallError::into_io)?;
    }
    Ok(Some(copy))
}

/// `DIR/NAME` for `/NAME`. Pure: the agent asks it too, to know what runs.
pub fn copy_of(program: &Path, dir: &Path) -> Option<PathBuf> {
    let mut parts = program.components().filter(|part| *part != std::path::Component::CurDir);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(std::path::Component::RootDir), Some(std::path::Component::Normal(name)), None) => {
            Some(dir.join(name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_directly_in_the_root_has_a_copy() {
        let copy = |program: &str| copy_of(Path::new(program), Path::new("/volume"));
        for program in ["/adder", "//adder", "/./adder"] {
            assert_eq!(copy(program), Some("/volume/adder".into()), "{program}");
        }
        for program in ["/", "/app/adder", "adder", "./adder", "/app/../adder", "/..", ""] {
            assert_eq!(copy(program), None, "{program}");
        }
    }
}
