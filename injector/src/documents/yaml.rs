//! YAML documents: read as kubectl reads them, written so that readers of YAML 1.1 and 1.2 see the same.

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

use super::split::{self, Part};
use super::{Document, DocumentError, json};

/// Values that aliases of one document may stand for, beyond those that are written.
const MAX_REPLAYED: usize = 100_000;
/// More than all manifests of a cluster have, and less than a few aliases in each of many documents can stand for.
const MAX_ALL_NODES: usize = 1_000_000;
/// Values and bytes of one document, and levels.
const MAX_NODES: usize = 1_000_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_DEPTH: usize = 120;

pub(super) fn read(text: &str) -> Result<Vec<Document>, DocumentError> {
    let (mut documents, mut nodes) = (Vec::new(), 0);
    for (index, part) in split::split(text).iter().enumerate() {
        let document = document(text, part, index + 1)?;
        nodes += document.value.as_ref().map_or(0, count);
        if nodes > MAX_ALL_NODES {
            let message = format!("more than {MAX_ALL_NODES} values, with those that aliases stand for");
            return Err(DocumentError { document: index + 1, line: document.line(), column: 1, message });
        }
        documents.push(document);
    }
    Ok(documents)
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn document(text: &str, part: &Part, number: usize) -> Result<Document, DocumentError> {
    let whole = &text[part.whole.clone()];
    let content = part.content.start - part.whole.start..part.content.end - part.whole.start;
    if content.is_empty() {
        return Ok(Document::new(whole, content, part.line, None));
    }
    // With what stands before it: directives say what its tags mean.
    let value = parse(whole).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let message = plain(&error);
        DocumentError { document: number, line: part.line + line.saturating_sub(1), column, message }
    })?;
    Ok(Document::new(whole, content, part.line, Some(value)))
}

fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        legacy_octal_numbers: true,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 4 * MAX_NODES,
            max_nodes: MAX_NODES,
            max_total_scalar_bytes: MAX_BYTES,
        },
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// The message without its place, which is that of the document and not of the stream.
fn plain(error: &serde_saphyr::Error) -> String {
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default();
    let place = first.rfind(" at line ").filter(|at| first[*at..].contains("column"));
    first[..place.unwrap_or(first.len())].trim_end_matches([':', ' ']).to_owned()
}

/// The value as a document of its own.
pub(super) fn text(value: &Value) -> String {
    let mut written = String::new();
    let options = serde_saphyr::ser_options! {
        compact_list_indent: true,
        // Only texts with lines are blocks: a folded one is hard to read and easy to break.
        folded_wrap_chars: usize::MAX,
    };
    let done = serde_saphyr::to_fmt_writer_with_options(&mut written, value, options);
    // Read again before anybody else does; JSON is YAML too.
    if done.is_err() || parse(&written).ok().as_ref() != Some(value) {
        written = json::text(value, Some("  "));
    }
    if !written.ends_with('\n') {
        written.push('\n');
    }
    written
}

/// A changed document: what stood before it, its value, what stood behind it.
pub(super) fn write(document: &Document, value: &Value, into: &mut String) {
    let (head, tail) = (&document.text[..document.content.start], &document.text[document.content.end..]);
    into.push_str(head);
    if !head.is_empty() && !head.ends_with('\n') {
        into.push('\n');
    }
    into.push_str(&text(value));
    into.push_str(tail);
}

/// What of a document's text is not in its value.
pub(super) fn presentation(text: &str) -> Vec<&'static str> {
    let (mut comments, mut anchors) = (false, false);
    for event in Parser::new_from_str(text).flatten() {
        match event.0 {
            Event::Comment(..) => comments = true,
            Event::Alias(_) => anchors = true,
            _ => {}
        }
    }
    let found = [(comments, "comments"), (anchors, "anchors")];
    found.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
}
