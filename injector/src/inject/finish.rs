//! The changed template, with the annotations that tell what was done.

use devsync_protocol::contract::annotation::{INJECTED, ORIGINAL};
use serde_json::{Map, Value, json};

use super::pod::Pod;
use super::state::RELEASE;
use crate::original;
use crate::outcome::Outcome;

/// The API's limit for all annotations of an object: names and values.
const MOST_ANNOTATIONS: usize = 256 * 1024;

impl Pod<'_> {
    pub(super) fn finish(mut self) -> Outcome {
        let metadata =
            original::entry(&mut self.original.template, &mut self.template, "metadata", json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return Outcome::default() };
        let annotations = original::entry(&mut self.original.metadata, metadata, "annotations", json!({}));
        let Some(annotations) = annotations.as_object_mut() else { return Outcome::default() };
        annotations.insert(INJECTED.to_owned(), json!(RELEASE));
        let record = serde_json::to_string(&self.original).unwrap_or_default();
        annotations.insert(ORIGINAL.to_owned(), json!(record));
        if size(annotations) > MOST_ANNOTATIONS {
            self.warnings.push(
                "not injected: its annotations, with the note of what was replaced, would be more than the 256 KiB that \
                 the API takes; hint: a shorter command, or fewer annotations"
                    .to_owned(),
            );
            return Outcome { warnings: self.warnings, ..Outcome::default() };
        }
        self.template.insert("spec".to_owned(), Value::Object(self.spec));
        Outcome { object: Some(Value::Object(self.template)), did: self.did, warnings: self.warnings }
    }
}

fn size(annotations: &Map<String, Value>) -> usize {
    annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}
