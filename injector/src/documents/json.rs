//! JSON values, one or several in a row: read with their places, written with the indentation that they came with.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, PrettyFormatter, Serializer};

use super::{Document, DocumentError};

pub(super) fn read(text: &str) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut begin = 0;
    while let Some(value) = values.next() {
        let value = value.map_err(|error| broken(&error, documents.len() + 1))?;
        let end = values.byte_offset();
        let line = text[..begin].matches('\n').count() as u64 + 1;
        let whole = &text[begin..end];
        let content = whole.len() - whole.trim_start().len()..whole.len();
        let value = exact(value, whole);
        documents.push(Document::new(whole, content, line, Some(value)));
        begin = end;
    }
    // The last one has what stands behind it too.
    if let Some(last) = documents.last_mut() {
        last.text.push_str(&text[begin..]);
    }
    Ok(documents)
}

fn broken(error: &serde_json::Error, document: usize) -> DocumentError {
    let (line, column) = (error.line() as u64, error.column().max(1) as u64);
    let message = error.to_string();
    let place = message.rfind(" at line ").unwrap_or(message.len());
    DocumentError { document, line, column, message: message[..place].to_owned() }
}

pub(super) fn write(document: &Document, value: &Value, into: &mut String) {
    let old = &document.text[document.content.clone()];
    into.push_str(&document.text[..document.content.start]);
    into.push_str(&text(value, indent(old)));
    into.push_str(&document.text[document.content.end..]);
}

/// What the first line below the first is indented with; `None` where all is on one line.
fn indent(text: &str) -> Option<&str> {
    let line = text.split_once('\n')?.1;
    let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
    Some(if indent.is_empty() { "  " } else { indent })
}

pub(super) fn text(value: &Value, indent: Option<&str>) -> String {
    let mut written = Vec::new();
    let done = match indent {
        Some(indent) => {
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut written, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut written, CompactFormatter)),
    };
    // A value has no key that is no string, and memory does not refuse to be written.
    debug_assert!(done.is_ok());
    String::from_utf8(written).unwrap_or_default()
}

/// The library reads a float to within one unit of its last digit; the standard library reads it exactly.
fn exact(mut value: Value, text: &str) -> Value {
    let texts = numbers(text);
    let mut places = Vec::new();
    collect(&mut value, &mut places);
    // A key that was given twice has its first value in the text only.
    if places.len() == texts.len() {
        for (place, text) in places.into_iter().zip(texts) {
            if place.is_f64()
                && let Some(number) = text.parse().ok().and_then(serde_json::Number::from_f64)
            {
                *place = number;
            }
        }
    }
    value
}

/// The numbers of a text that is JSON, in their order.
fn numbers(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        rest = &rest[at..];
        if let Some(string) = rest.strip_prefix('"') {
            rest = behind_string(string);
        } else {
            let end = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
            let (number, after) = rest.split_at(end.unwrap_or(rest.len()));
            found.push(number);
            rest = after;
        }
    }
    found
}

fn behind_string(text: &str) -> &str {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.map_or("", |end| &text[end + 1..])
}

fn collect<'v>(value: &'v mut Value, into: &mut Vec<&'v mut serde_json::Number>) {
    match value {
        Value::Number(number) => into.push(number),
        Value::Array(items) => items.iter_mut().for_each(|item| collect(item, into)),
        Value::Object(fields) => fields.values_mut().for_each(|field| collect(field, into)),
        _ => {}
    }
}
