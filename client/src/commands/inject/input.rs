//! Where manifests come from: files, directories, standard input; and how several become one text.

use std::fs;
use std::io::{IsTerminal, Read};
use std::path::Path;

use devsync_injector::documents::{self, Format, Stream};
use devsync_injector::filter::Filtered;

use crate::error::CommandError;

/// More than a cluster's manifests, less than a laptop's memory.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One text.
pub(super) struct Input {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// All files in their order; of a directory its manifests by name, as kubectl takes them.
pub(super) fn read_all(files: &[String]) -> Result<Vec<Input>, CommandError> {
    if files.is_empty() {
        return Ok(vec![standard()?]);
    }
    let mut inputs = Vec::new();
    let mut is_read = false;
    for file in files {
        let path = Path::new(file);
        if file == "-" {
            if std::mem::replace(&mut is_read, true) {
                return Err(CommandError::usage("-f - is given twice").cause("standard input has one end"));
            }
            inputs.push(standard()?);
        } else if path.is_dir() {
            inputs.extend(directory(path)?);
        } else {
            inputs.push(read(path)?);
        }
    }
    Ok(inputs)
}

pub(super) fn standard() -> Result<Input, CommandError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(CommandError::usage("no manifest is given").cause("standard input is a terminal").hint(
            "devsync inject -f FILE, or kubectl get deploy NAME -o yaml | devsync inject | kubectl apply -f -",
        ));
    }
    take("standard input", stdin.lock())
}

fn directory(path: &Path) -> Result<Vec<Input>, CommandError> {
    let listed = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut paths = listed.map_err(|error| unreadable(path, error))?;
    paths.retain(|path| {
        path.is_file()
            && path.extension().and_then(|ending| ending.to_str()).is_some_and(|e| ENDINGS.contains(&e))
    });
    paths.sort();
    if paths.is_empty() {
        return Err(CommandError::usage(format!("{} has no manifests", path.display()))
            .cause("no file in it ends with .yaml, .yml or .json")
            .hint(format!(
                "its subdirectories are not looked into; kubectl kustomize {} | devsync inject",
                path.display()
            )));
    }
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Input, CommandError> {
    take(&path.display().to_string(), fs::File::open(path).map_err(|error| unreadable(path, error))?)
}

fn unreadable(path: &Path, error: std::io::Error) -> CommandError {
    CommandError::usage(format!("{} cannot be read", path.display())).cause(error)
}

fn take(name: &str, from: impl Read) -> Result<Input, CommandError> {
    let mut bytes = Vec::new();
    let taken = from.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    taken.map_err(|error| CommandError::new(format!("{name} cannot be read")).cause(error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CommandError::new(format!("{name} is larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(Input { name: name.to_owned(), bytes })
}

/// One text of all. Several are documents of one YAML stream, in which JSON may stand too.
pub(super) fn joined(done: &[(Stream, Filtered)]) -> String {
    if let [(_, only)] = done {
        return only.text.clone();
    }
    let mut text = String::new();
    for (stream, filtered) in done {
        let pieces: Vec<String> = match stream.format {
            Format::Yaml => vec![filtered.text.clone()],
            Format::Json => {
                let values = stream.documents.iter().filter_map(|document| document.value());
                values.map(|value| documents::to_text(value, Format::Json)).collect()
            }
        };
        for piece in pieces {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            if !text.is_empty() && !begins_with_marker(&piece) {
                text.push_str("---\n");
            }
            text.push_str(&piece);
        }
    }
    text
}

fn begins_with_marker(text: &str) -> bool {
    let first = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with("---"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_one_stream() {
        let filter = devsync_injector::filter::Filter::default();
        let done: Vec<_> = ["a: 1", "# x\n---\nb: 1\n", "{\"c\": 1}{\"d\": 1}", "e: 1\n"]
            .map(|text| filter.stream(text.as_bytes()).expect("it is YAML"))
            .into();
        let text = joined(&done);
        assert_eq!(text, "a: 1\n# x\n---\nb: 1\n---\n{\n  \"c\": 1\n}\n---\n{\n  \"d\": 1\n}\n---\ne: 1\n");
    }
}
