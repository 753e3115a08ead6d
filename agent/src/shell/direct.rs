//! One program and its arguments, without a shell: the app's own, else the toolbox's.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;

use nix::errno::Errno;
use nix::unistd;

use super::helper::{Done, Failure, SHELLS, by_descriptor, c_string, failed};
use super::toolbox;

/// Executes it as execvp would. `busybox` is given where it has an applet of that name.
pub(super) fn execute(
    words: &[Vec<u8>],
    environment: &[CString],
    busybox: Option<File>,
    rsync: Option<File>,
) -> Done<Infallible> {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    let arguments = words.iter().map(|word| c_string(word)).collect::<Done<Vec<_>>>()?;
    let mut worst = Errno::ENOENT;
    for candidate in candidates(name, environment) {
        let path = c_string(&candidate)?;
        match unistd::execve(&path, &arguments, environment) {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ESTALE | Errno::ENODEV) => {}
            // A script without its first line is the shell's.
            Err(Errno::ENOEXEC) => worst = script(&path, &arguments, environment)?,
            Err(errno @ (Errno::EACCES | Errno::ELOOP | Errno::EISDIR)) => worst = errno,
            Err(errno) => return Err(failed("execute the program")(errno)),
        }
    }
    // One that is there and cannot be executed is not replaced by another.
    let is_absent = worst == Errno::ENOENT;
    match (busybox.filter(|_| is_absent), rsync.filter(|_| is_absent)) {
        (Some(busybox), _) => by_descriptor(toolbox::sealed(busybox, c"busybox"), &arguments, environment),
        (None, Some(rsync)) if name == b"rsync" => {
            by_descriptor(toolbox::sealed(rsync, c"rsync"), &arguments, environment)
        }
        _ => {
            let name = String::from_utf8_lossy(name);
            Err(Failure::missing(match worst {
                Errno::ENOENT if name.contains('/') => format!("{name}: no such file in the app's root"),
                Errno::ENOENT => format!("{name} is neither in the app's PATH nor in the agent's toolbox"),
                errno => format!("{name}: {}", errno.desc()),
            }))
        }
    }
}

/// Gives the error that stays where no shell is there for it.
fn script(path: &CString, arguments: &[CString], environment: &[CString]) -> Done<Errno> {
    for shell in SHELLS {
        let shell = c_string(shell)?;
        let words: Vec<&CString> = [&shell, path].into_iter().chain(arguments.iter().skip(1)).collect();
        // What it was started with if it comes back: the script's error says more than the shell's.
        let _ = unistd::execve(&shell, &words, environment);
    }
    Ok(Errno::ENOEXEC)
}

/// Where a program of that name may lie in the app's root: itself if it has a slash, else below each part of PATH.
pub(super) fn candidates(name: &[u8], environment: &[CString]) -> Vec<Vec<u8>> {
    if name.is_empty() || name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = environment.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let directories = path.unwrap_or_default().split(|byte| *byte == b':');
    directories
        .map(|directory| match directory {
            b"" => name.to_vec(),
            directory => [directory, b"/", name].concat(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_where_its_path_says() {
        let environment = [c"HOME=/".to_owned(), c"PATH=/bin:/usr/bin:".to_owned()];
        let found = |name: &str| {
            let found = candidates(name.as_bytes(), &environment);
            found.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("ls"), ["/bin/ls", "/usr/bin/ls", "ls"]);
        assert_eq!(found("./ls"), ["./ls"]);
        assert_eq!(found(""), [""]);
    }
}
