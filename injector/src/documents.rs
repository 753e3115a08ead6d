//! A stream of YAML documents or JSON values, as manifests come: read, changed here and there, and written again.
//!
//! What is not changed keeps its very bytes, with comments, anchors and markers. A changed YAML document keeps the
//! comments before and behind it and loses those in it. Values are what kubectl's reader (YAML 1.1) sees: `yes` is a
//! boolean, `0644` is 420; a string that such a reader would take for something else is quoted when it is written.

mod json;
mod split;
mod yaml;

use std::fmt;

use serde_json::Value;

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

/// One text and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub format: Format,
    pub documents: Vec<Document>,
}

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// As it came: markers and comments too, so that all texts together are the stream's.
    text: String,
    /// Where its content begins and ends in that.
    content: std::ops::Range<usize>,
    /// The line of the stream on which it begins, from 1.
    line: u64,
    /// Nothing but comments where it is missing.
    value: Option<Value>,
    is_changed: bool,
}

/// Where a text is not what it should be, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// Which document of the stream.
    pub document: usize,
    pub line: u64,
    pub column: u64,
    pub message: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads a stream: JSON where it begins with a brace or a bracket and is JSON, else YAML.
pub fn read(bytes: &[u8]) -> Result<Stream, DocumentError> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(bytes, error.valid_up_to())),
    };
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    Ok(match looks_like_json.then(|| json::read(text)) {
        Some(Ok(documents)) => Stream { format: Format::Json, documents },
        // A YAML flow mapping begins like JSON.
        Some(Err(error)) => {
            yaml::read(text).map(|documents| Stream { format: Format::Yaml, documents }).map_err(|_| error)?
        }
        None => Stream { format: Format::Yaml, documents: yaml::read(text)? },
    })
}

impl Stream {
    /// The whole text, with what was changed.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for document in &self.documents {
            match (&document.value, document.is_changed) {
                (Some(value), true) => match self.format {
                    Format::Yaml => yaml::write(document, value, &mut text),
                    Format::Json => json::write(document, value, &mut text),
                },
                _ => text.push_str(&document.text),
            }
        }
        text
    }
}

impl Document {
    fn new(text: &str, content: std::ops::Range<usize>, line: u64, value: Option<Value>) -> Self {
        Self { text: text.to_owned(), content, line, value, is_changed: false }
    }

    /// What it says; `None` where it is only comments.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// The line of the stream on which its content begins, from 1.
    pub fn line(&self) -> u64 {
        self.line + self.text[..self.content.start].matches('\n').count() as u64
    }

    /// Puts another value in its place; an equal one changes nothing.
    pub fn replace(&mut self, value: Value) {
        if self.value.as_ref() != Some(&value) {
            (self.value, self.is_changed) = (Some(value), true);
        }
    }

    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// What of its text a change loses: comments in it, anchors. Empty for JSON.
    pub fn loses(&self) -> Vec<&'static str> {
        if self.is_changed { yaml::presentation(&self.text[self.content.clone()]) } else { Vec::new() }
    }
}

/// Writes a value alone, as a document without a marker.
pub fn to_text(value: &Value, format: Format) -> String {
    match format {
        Format::Yaml => yaml::text(value),
        Format::Json => json::text(value, Some("  ")) + "\n",
    }
}

fn not_utf8(bytes: &[u8], at: usize) -> DocumentError {
    let before = &bytes[..at];
    let line = before.iter().filter(|b| **b == b'\n').count() as u64 + 1;
    let begin = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[begin..]).chars().count() as u64 + 1;
    let message = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16: save it as UTF-8",
        _ => "it is not UTF-8",
    };
    DocumentError { document: 1, line, column, message: message.to_owned() }
}
