//! Where the documents of a YAML stream begin and end. YAML forbids a line that begins with `---` or `...` inside of any
//! content, so lines decide, and nothing has to be understood.

use std::ops::Range;

/// One document's place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// All of it; the parts together are the text.
    pub(super) whole: Range<usize>,
    /// Without markers, directives and comments before it, and comments and the end's marker behind it.
    pub(super) content: Range<usize>,
    /// From 1.
    pub(super) line: u64,
}

/// What a line means at this level.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// `---`, with content on it or without.
    Begin {
        has_content: bool,
    },
    /// `...`
    End,
    Directive,
    /// Blank, or a comment from the first column.
    Comment,
    Content,
}

fn kind(line: &str, begun: bool) -> Line {
    let plain = line.trim_end_matches(['\n', '\r']).trim_start_matches('\u{feff}');
    let marker = |mark: &str| {
        plain
            .strip_prefix(mark)
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
            .map(str::trim)
    };
    if let Some(rest) = marker("---") {
        return Line::Begin { has_content: !rest.is_empty() && !rest.starts_with('#') };
    }
    if marker("...").is_some() {
        return Line::End;
    }
    // A percent sign is a directive only before a document.
    if plain.starts_with('%') && !begun {
        return Line::Directive;
    }
    let is_comment = plain.starts_with('#') || plain.trim().is_empty();
    if is_comment { Line::Comment } else { Line::Content }
}

/// Cuts a stream into its documents.
pub(super) fn split(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut open = Open::at(0, 1);
    let (mut at, mut number) = (0, 1);
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        match kind(line, open.is_begun()) {
            Line::Begin { has_content } => {
                if open.is_begun() {
                    parts.push(open.close(at));
                    open = Open::at(at, number);
                }
                open.marked = true;
                // The byte behind the dashes.
                let behind = at + (line.len() - line.trim_start_matches('\u{feff}').len()) + 3;
                open.content = if has_content { behind..end } else { end..end };
                open.has_content = has_content;
            }
            Line::End => {
                // Without content it ends an empty document.
                parts.push(open.close(end));
                open = Open::at(end, number + 1);
            }
            Line::Directive => open.head(end),
            Line::Comment if !open.has_content => open.head(end),
            Line::Comment => {}
            Line::Content => {
                if !open.has_content {
                    open.content = at..end;
                }
                open.content.end = end;
                open.has_content = true;
            }
        }
        (at, number) = (end, number + 1);
    }
    if open.start < text.len() {
        parts.push(open.close(text.len()));
    }
    parts
}

/// A document that is being read.
struct Open {
    start: usize,
    line: u64,
    content: Range<usize>,
    has_content: bool,
    /// Its `---` came.
    marked: bool,
}

impl Open {
    fn at(start: usize, line: u64) -> Self {
        Self { start, line, content: start..start, has_content: false, marked: false }
    }

    /// Another marker begins another document.
    fn is_begun(&self) -> bool {
        self.has_content || self.marked
    }

    fn head(&mut self, end: usize) {
        self.content = end..end;
    }

    fn close(&self, end: usize) -> Part {
        Part { whole: self.start..end, content: self.content.clone(), line: self.line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &str) -> Vec<&str> {
        let parts = split(text);
        assert_eq!(parts.iter().map(|part| &text[part.whole.clone()]).collect::<String>(), text);
        parts.iter().map(|part| &text[part.content.clone()]).collect()
    }

    #[test]
    fn documents_end_at_markers_and_keep_their_comments_around() {
        assert_eq!(contents("a: 1\n---\nb: 2\n"), ["a: 1\n", "b: 2\n"]);
        assert_eq!(contents("# top\n---\n# Source: x\na: 1\n\n# end\n---\n"), ["a: 1\n", ""]);
        assert_eq!(contents("--- {a: 1}\n---\tb\n"), [" {a: 1}\n", "\tb\n"]);
        assert_eq!(contents("%YAML 1.1\n---\na: 1\n...\n%TAG ! x\n---\nb: 1\n...\n"), ["a: 1\n", "b: 1\n"]);
        assert_eq!(contents("a: 1\r\n--- # x\r\nb: 2\r\n"), ["a: 1\r\n", "b: 2\r\n"]);
        assert_eq!(contents("a: 1"), ["a: 1"]);
        assert_eq!(contents(""), Vec::<&str>::new());
    }

    #[test]
    fn what_only_looks_like_a_marker_is_content() {
        assert_eq!(contents("a: |\n  ---\n  x\n---x: 1\n----\n"), ["a: |\n  ---\n  x\n---x: 1\n----\n"]);
        assert_eq!(contents("a: |\n  x\n# c\n%y: z\n"), ["a: |\n  x\n# c\n%y: z\n"]);
    }

    #[test]
    fn lines_are_those_of_the_stream() {
        let lines: Vec<_> = split("a\n---\nb\nc\n...\n---\nd\n").iter().map(|part| part.line).collect();
        assert_eq!(lines, [1, 2, 6]);
    }
}
