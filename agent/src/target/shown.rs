//! Bytes from the app or the laptop, made safe for one line of a message.

use std::fmt;

/// Shows printable text as it is and everything else (newline, ESC, invalid UTF-8, invisible and
/// direction-changing characters) escaped, in quotes.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(pub Vec<u8>);

impl From<&[u8]> for Shown {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Longer names are cut in messages; the whole is never needed to find them.
const LONGEST: usize = 300;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(LONGEST)];
        f.write_str("\"")?;
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    c if is_plain(c) => write!(f, "{c}")?,
                    c => write!(f, "{}", c.escape_default())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str(if shown.len() < self.0.len() { "\"…" } else { "\"" })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_plain(c: char) -> bool {
    // Debug escapes what Unicode calls not printable, format characters among them.
    !c.is_control() && (c == '\'' || c.escape_debug().count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        Shown::from(bytes).to_string()
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown(b"a\nb\x1b[2J\xffc\"\\"), r#""a\nb\u{1b}[2J\xffc\"\\""#);
        assert_eq!(shown("gr\u{fc}\u{df}e/it's".as_bytes()), "\"gr\u{fc}\u{df}e/it's\"");
        assert_eq!(shown("\u{202e}gpj".as_bytes()), r#""\u{202e}gpj""#);
        assert!(shown(&[b'x'; 5000]).len() < 400);
    }
}
