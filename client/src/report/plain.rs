//! Text that came from elsewhere, made harmless for a terminal.

/// More characters of one text than this are not shown.
const SHOWN: usize = 16 * 1024;

/// `text` with its line ends; other control characters and those that reorder a line are written out.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == SHOWN => {
                shown.push('…');
                break;
            }
            '\n' => shown.push(c),
            c if c.is_control() || reorders(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// As [`plain`], in one line.
pub fn plain_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// Characters of Unicode TR 9, and those that end a line or a paragraph.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_steered() {
        let evil = "a\\b\u{1b}]0;x\u{7}\n\u{9b}2J\u{202e}é\r";
        assert_eq!(plain(evil), "a\\b\\u{1b}]0;x\\u{7}\n\\u{9b}2J\\u{202e}é\\r");
        assert_eq!(plain_line("one\ntwo"), "one\\ntwo");
        assert_eq!(plain(&"x".repeat(SHOWN + 9)).chars().count(), SHOWN + 1);
    }
}
