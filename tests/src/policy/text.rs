//! What source files may not say, and where: as data, with one plain search over the tree.
//! A rule here is about text; what the compiler or clippy can check is left to them.

use std::fs;
use std::path::{Path, PathBuf};

/// A text that may not appear under some directories, except in some files.
pub struct Forbidden {
    pub text: &'static str,
    /// Directories of the workspace, relative to its root.
    pub under: &'static [&'static str],
    /// Files or directories that may.
    pub except: &'static [&'static str],
    pub why: &'static str,
}

const SOURCES: &[&str] = &["protocol/src", "agent/src", "client/src", "tests/src", "tests/tests"];
const SYS: &[&str] = &["agent/src/sys", "agent/src/sys.rs"];
const SUPERVISOR: &[&str] = &["agent/src/supervisor", "agent/src/supervisor.rs", "agent/src/bin"];
const POLICY: &str = "tests/src/policy/text.rs";

/// Every text rule.
pub const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        text: "allow(unsafe_code)",
        under: SOURCES,
        except: &[SYS[0], SYS[1], POLICY],
        why: "unsafe code is for agent::sys alone",
    },
    Forbidden {
        text: "\"/proc/{",
        under: &["protocol/src", "agent/src", "client/src"],
        except: &[SYS[0]],
        why: "what the kernel says of a process is read in agent::sys alone",
    },
    Forbidden {
        text: "tokio",
        under: SUPERVISOR,
        except: &[],
        why: "devsync-run is tiny and has no async runtime",
    },
    Forbidden { text: "std::fs", under: &["protocol/src"], except: &[], why: "the protocol is pure: no IO" },
    Forbidden {
        text: "Instant::now",
        under: &["protocol/src"],
        except: &[],
        why: "the protocol is pure: no clock",
    },
    Forbidden {
        text: "std::os::linux",
        under: &["client/src"],
        except: &[],
        why: "the client builds for Linux, macOS and Windows",
    },
];

/// Longest production part of a source file, in lines.
pub const MAX_LINES: usize = 600;

/// Lists the `.rs` files under `root/dir`, or the file itself; nothing if it is not there.
pub fn rust_files(root: &Path, dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.join(dir)];
    while let Some(path) = open.pop() {
        if path.extension().is_some_and(|ext| ext == "rs") && path.is_file() {
            found.push(path);
        } else if let Ok(entries) = fs::read_dir(&path) {
            open.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    found.sort();
    found
}

/// Says where `rule` is broken, one line per place.
pub fn violations(root: &Path, rule: &Forbidden) -> Vec<String> {
    let files = rule.under.iter().flat_map(|dir| rust_files(root, dir));
    let mut broken = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        if rule.except.iter().any(|exception| name.starts_with(exception)) || name == Path::new(POLICY) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap_or_default();
        for (number, line) in production(&text).enumerate() {
            if !line.trim_start().starts_with("//") && line.contains(rule.text) {
                broken.push(format!("{}:{}: {} ({})", name.display(), number + 1, line.trim(), rule.why));
            }
        }
    }
    broken
}

/// The lines of a file before its inline tests.
pub fn production(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}
