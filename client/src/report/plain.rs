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
            c if steers(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// As [`plain`], in one line.
pub fn plain_line(text: &str) -> String {
    plain(text).replace('\n', "\\n")
}

/// A line of an app's log, for a terminal: its colours stay (`ESC [ … m`), everything else that steers is written out.
pub fn terminal_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.trim_end_matches('\r');
    let mut coloured = false;
    while let Some(c) = rest.chars().next() {
        let colour = rest.strip_prefix("\x1b[").and_then(|sequence| {
            let end = sequence.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            sequence[end..].starts_with('m').then_some(2 + end + 1)
        });
        let taken = colour.unwrap_or(c.len_utf8());
        match (colour, c) {
            (Some(_), _) => shown.push_str(&rest[..taken]),
            (None, '\t') => shown.push(c),
            (None, c) if steers(c) => shown.extend(c.escape_default()),
            (None, c) => shown.push(c),
        }
        coloured |= colour.is_some();
        rest = &rest[taken..];
    }
    if coloured {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// True for what a terminal takes for a command, or that shows a line in another order than it has.
pub(super) fn steers(c: char) -> bool {
    c.is_control() || reorders(c)
}

/// Characters of Unicode TR 9, and those that end a line or a paragraph.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_colours_and_nothing_else_that_steers() {
        let line = b"\x1b[1;31mred\x1b[0m \x1b[2J\x1b]0;t\x07\tok\r";
        assert_eq!(terminal_line(line), "\x1b[1;31mred\x1b[0m \\u{1b}[2J\\u{1b}]0;t\\u{7}\tok\x1b[0m");
        assert_eq!(terminal_line(b"\x1b["), "\\u{1b}[");
        assert_eq!(terminal_line(b"plain \xff"), "plain \u{fffd}");
    }

    #[test]
    fn a_terminal_is_not_steered() {
        let evil = "a\\b\u{1b}]0;x\u{7}\n\u{9b}2J\u{202e}é\r";
        assert_eq!(plain(evil), "a\\b\\u{1b}]0;x\\u{7}\n\\u{9b}2J\\u{202e}é\\r");
        assert_eq!(plain_line("one\ntwo"), "one\\ntwo");
        assert_eq!(plain(&"x".repeat(SHOWN + 9)).chars().count(), SHOWN + 1);
    }
}
