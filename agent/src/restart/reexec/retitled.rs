//! Whether a program wrote over its own arguments (setproctitle: nginx, php-fpm, postgres, puma): what /proc shows is
//! then a title, and to execute it would start something else. Judges what is seen; records nothing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use devsync_protocol::restart::{Refusal, RefusalKind};

use crate::sys::proc_task::{self, Arguments};

const LONGEST_TITLE: usize = 80;

/// What shows that a process's arguments are no longer those of its start; `None` if nothing does.
pub(super) fn evidence(pid: i32) -> io::Result<Option<String>> {
    let shown = proc_task::command_line(pid)?;
    let exe = proc_task::executable(pid)?;
    Ok(judge(&shown, &proc_task::original_arguments(pid)?, &exe))
}

/// The refusal that follows from it.
pub(super) fn refusal(pid: i32, evidence: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Retitled,
        cause: format!(
            "process {pid} wrote over its own arguments, so how it was started is not known: {evidence}"
        ),
        hint: "start the app under devsync-run, or let it reload by itself with --restart signal:HUP".into(),
    }
}

fn judge(shown: &[u8], original: &Arguments, exe: &Path) -> Option<String> {
    let body = shown.strip_suffix(b"\0").unwrap_or(shown);
    let arguments: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let empty = arguments.iter().rev().take_while(|argument| argument.is_empty()).count();
    let title = || {
        let text = String::from_utf8_lossy(arguments[0]);
        format!("{:?}", text.chars().take(LONGEST_TITLE).collect::<String>())
    };
    // The kernel shows exactly their bytes, unless the last one is no NUL any more.
    match original.size {
        Some(size) if shown.len() > size => {
            return Some(format!("{} reaches into its environment", title()));
        }
        Some(size) if shown.len() < size => return Some(format!("it shows {}", title())),
        _ => {}
    }
    let is_title = match original.count {
        // More than there were: ld.so, started as a program, counts itself out; a padded title ends in empty ones.
        Some(count) => arguments.len() < count || (arguments.len() > count && empty > 0),
        None => empty > 1 || (arguments.len() == 1 && is_sentence(arguments[0], exe)),
    };
    is_title.then(|| format!("it shows {}", title()))
}

/// Whether a lone argument has blanks that no file name explains.
fn is_sentence(argument: &[u8], exe: &Path) -> bool {
    let name = Path::new(OsStr::from_bytes(argument)).file_name();
    argument.contains(&b' ') && name != exe.file_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(shown: &[u8], size: Option<usize>, count: Option<usize>) -> bool {
        judge(shown, &Arguments { size, count }, Path::new("/usr/sbin/nginx")).is_some()
    }

    #[test]
    fn titles_are_told_from_arguments() {
        let title = b"nginx: master process nginx -g daemon off;\0";
        assert!(seen(title, Some(22), Some(3)), "into the environment");
        assert!(seen(title, Some(60), Some(3)), "shorter than the arguments");
        assert!(seen(title, Some(title.len()), Some(3)), "as long as the arguments");
        assert!(seen(b"app\0\0\0\0\0\0\0", Some(10), Some(2)), "padded with NUL");
        assert!(seen(b"app           \0", Some(15), Some(2)), "padded with blanks");
        assert!(seen(title, None, None), "nothing else known");
    }

    #[test]
    fn arguments_are_taken_as_they_are() {
        let exact = |shown: &[u8], count| seen(shown, Some(shown.len()), Some(count));
        assert!(!exact(b"nginx\0-g\0daemon off;\0", 3), "blanks in an argument");
        assert!(!exact(b"my server\0", 1), "blanks in a lone argument");
        assert!(!exact(b"app\0\0\0", 3), "empty ones at the end");
        assert!(!exact(b"ld.so\0app\0x\0", 2), "started through ld.so");
        assert!(!seen(b"app\0-v\0\0", None, None));
        assert!(!seen(b"/srv/nginx\0", None, None));
    }
}
