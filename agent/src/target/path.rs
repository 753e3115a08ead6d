//! Paths below a sync root, checked once more before the kernel sees them: bytes, relative, plain.

use super::error::TargetError;

/// The kernel's `PATH_MAX` counts the ending NUL.
const LONGEST_PATH: usize = 4095;
const LONGEST_NAME: usize = 255;

/// Splits into the directory (empty for the sync root itself) and the leaf.
///
/// Refuses the empty path, absolute ones, empty components, `.`, `..`, NUL, and what is too long.
pub fn split(path: &[u8]) -> Result<(&[u8], &[u8]), TargetError> {
    check(path)?;
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => Ok((&path[..at], &path[at + 1..])),
        None => Ok((b"", path)),
    }
}

/// Checks a relative path of one or more components.
pub fn check(path: &[u8]) -> Result<(), TargetError> {
    let bad = |reason| Err(TargetError::BadPath { path: path.into(), reason });
    if path.is_empty() {
        return bad("it is empty");
    }
    if path.len() > LONGEST_PATH {
        return bad("it is longer than the 4095 bytes that the kernel takes");
    }
    for component in path.split(|b| *b == b'/') {
        check_component(component).or_else(bad)?;
    }
    Ok(())
}

/// Checks a single name.
pub fn check_leaf(leaf: &[u8]) -> Result<(), TargetError> {
    let reason = match check_component(leaf) {
        Ok(()) if !leaf.contains(&b'/') => return Ok(()),
        Ok(()) => "it holds a slash where one name is wanted",
        Err(reason) => reason,
    };
    Err(TargetError::BadPath { path: leaf.into(), reason })
}

fn check_component(component: &[u8]) -> Result<(), &'static str> {
    match component {
        b"" => Err("it is absolute, or a component is empty"),
        b"." | b".." => Err("a component is `.` or `..`"),
        c if c.contains(&0) => Err("it holds a NUL byte"),
        c if c.len() > LONGEST_NAME => Err("a component is longer than the 255 bytes that the kernel takes"),
        _ => Ok(()),
    }
}

/// A path in the app's own root, as the app would write it: `/` and `.` components are taken off, `..` is refused.
pub fn in_root(path: &[u8]) -> Result<Vec<u8>, TargetError> {
    let plain: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    let joined = plain.join(&b'/');
    if !joined.is_empty() {
        check(&joined)?;
    }
    Ok(joined)
}

/// `base` and `rest` with a slash between them, where both are there.
pub fn join(base: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut joined = base.to_vec();
    if !rest.is_empty() {
        if !base.ends_with(b"/") && !base.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(rest);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_lead_out_are_refused() {
        for path in [
            &b""[..],
            b"/",
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/..",
            b"../a",
            b"a/./b",
            b"a/../b",
            b"a\0b",
        ] {
            assert!(split(path).is_err(), "{path:?}");
        }
        assert!(check_leaf(b"a/b").is_err());
        assert!(check(&[b'x'; 256]).is_err());
        assert!(check(&b"abcd/".repeat(1000)[..4999]).is_err());
    }

    #[test]
    fn odd_names_are_names() {
        assert_eq!(split(b"a/\n\x1b\xff").ok(), Some((&b"a"[..], &b"\n\x1b\xff"[..])));
        assert_eq!(split(b"...").ok(), Some((&b""[..], &b"..."[..])));
        assert!(split(&[b'x'; 255]).is_ok());
    }

    #[test]
    fn a_root_path_loses_its_slashes_and_keeps_no_dots() {
        assert_eq!(in_root(b"//srv/./app/").ok(), Some(b"srv/app".to_vec()));
        assert_eq!(in_root(b"/").ok(), Some(Vec::new()));
        assert!(in_root(b"/srv/../etc").is_err());
    }
}
