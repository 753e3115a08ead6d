//! Splits a command line as a shell would, where that needs no shell. Pure.

/// The words of `command`: blanks, quotes and backslashes mean what they mean to sh(1). None where it holds anything
/// that only a shell can do (expansions, redirections, more than one command), or a quote that is not closed.
pub fn split(command: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = command.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().push(bytes.next()?),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next()? {
                        b'\'' => break,
                        byte => word.push(byte),
                    }
                }
            }
            b'"' => quoted(&mut bytes, word.get_or_insert_default())?,
            b'\n' | b'$' | b'`' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'*' | b'?' | b'['
            | b'#' | b'~' | b'{' | b'!' => return None,
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Some(words)
}

fn quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Option<()> {
    loop {
        match bytes.next()? {
            b'"' => return Some(()),
            b'$' | b'`' => return None,
            b'\\' => match bytes.next()? {
                byte @ (b'"' | b'\\' | b'$' | b'`') => word.push(byte),
                byte => word.extend([b'\\', byte]),
            },
            byte => word.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Option<Vec<String>> {
        let words = split(command.as_bytes())?;
        Some(words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect())
    }

    #[test]
    fn words_are_those_of_a_shell() {
        let rsync = r#"rsync --server -vlogDtpre.iLsfxCIvu . "a b"/c\ d 'e"$' ''"#;
        let expected = ["rsync", "--server", "-vlogDtpre.iLsfxCIvu", ".", "a b/c d", "e\"$", ""];
        assert_eq!(words(rsync), Some(expected.map(str::to_owned).to_vec()));
        assert_eq!(words(r#""\a\"""#), Some(vec![r#"\a""#.to_owned()]));
        assert_eq!(words("  "), Some(Vec::new()));
    }

    #[test]
    fn what_needs_a_shell_is_left_to_one() {
        for command in [
            "a $b", "a;b", "a|b", "a>b", "a`b`", "a *", "'a", "\"a", "\"$a\"", "a\\", "~/x", "a\nb", "a && b",
        ] {
            assert_eq!(words(command), None, "{command}");
        }
    }
}
