//! The line of a user in the app's /etc/passwd. Pure.

/// What the line says of interest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'t> {
    pub(crate) name: &'t [u8],
    pub(crate) home: &'t [u8],
    /// None where the user is not meant to log in.
    pub(crate) shell: Option<&'t [u8]>,
}

/// Shells that say no. Whoever has a key here was let in by the cluster, not by this file.
const NONE: [&[u8]; 5] = [b"", b"/sbin/nologin", b"/usr/sbin/nologin", b"/bin/false", b"/usr/bin/false"];

pub(crate) fn line(text: &[u8], uid: u32) -> Option<Line<'_>> {
    text.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next()?;
        let number = std::str::from_utf8(fields.nth(1)?).ok()?;
        if number.parse() != Ok(uid) {
            return None;
        }
        let home = fields.nth(2)?;
        let shell = fields.next()?;
        Some(Line { name, home, shell: (!NONE.contains(&shell)).then_some(shell) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number() {
        let text = b"root:x:0:0:root:/root:/bin/bash\nbad\n:::\napp:x:1000:1000::/srv:/usr/sbin/nologin\n";
        let root = Line { name: b"root", home: b"/root", shell: Some(b"/bin/bash") };
        assert_eq!(line(text, 0), Some(root));
        assert_eq!(line(text, 1000), Some(Line { name: b"app", home: b"/srv", shell: None }));
        assert_eq!(line(text, 1), None);
        assert_eq!(line(b"", 0), None);
    }
}
