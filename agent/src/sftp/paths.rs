//! Paths as an SFTP client names them, made plain: relative to the app's root, without `.` and `..`. Pure.
//!
//! `..` is taken off by name, and stops at the root: symlinks are the business of whoever opens the path.

/// A path below the app's root, without slashes at its ends; empty for the root itself.
pub(super) fn plain(home: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let base: &[u8] = if path.starts_with(b"/") { b"" } else { home };
    for part in base.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// `~` and `~/x` (expand-path@openssh.com); other users have no home here.
pub(super) fn expanded(path: &[u8]) -> Option<&[u8]> {
    match path {
        b"~" => Some(b"."),
        [b'~', b'/', rest @ ..] => Some(if rest.is_empty() { b"." } else { rest }),
        [b'~', ..] => None,
        path => Some(path),
    }
}

/// The absolute form of a plain path.
pub(super) fn absolute(plain: &[u8]) -> Vec<u8> {
    [b"/", plain].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_home_and_end_at_the_root() {
        for (path, expected) in [
            (&b""[..], &b"srv/app"[..]),
            (b".", b"srv/app"),
            (b"x//y/./z/", b"srv/app/x/y/z"),
            (b"..", b"srv"),
            (b"../../../../etc/passwd", b"etc/passwd"),
            (b"/../..", b""),
            (b"/a/../b", b"b"),
            (b"/\xff\n", b"\xff\n"),
        ] {
            assert_eq!(plain(b"/srv/app", path), expected, "{path:?}");
        }
        assert_eq!(absolute(b""), b"/");
    }

    #[test]
    fn a_tilde_is_home_and_nobody_elses() {
        assert_eq!(expanded(b"~"), Some(&b"."[..]));
        assert_eq!(expanded(b"~/x"), Some(&b"x"[..]));
        assert_eq!(expanded(b"~/"), Some(&b"."[..]));
        assert_eq!(expanded(b"a~"), Some(&b"a~"[..]));
        assert_eq!(expanded(b"~root/x"), None);
    }
}
