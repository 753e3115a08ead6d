//! Where in the app's root the laptop's files may belong: a bounded look through its directories.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::{Duration, Instant};

use devsync_protocol::message::{FoundPlace, Wanted};
use devsync_protocol::path::{PodPath, RelPath};

use super::root::{RootError, digest_reader};
use crate::target::metadata::Kind;
use crate::target::root::SyncRoot;

/// Most directories that are looked into.
const MAX_DIRS: usize = 100_000;
/// Most entries of one directory; larger ones are skipped.
const MAX_ENTRIES: usize = 50_000;
/// Most files that are looked for.
const MAX_WANTED: usize = 200;
/// Larger files are not read for their digest.
const MAX_READ: u64 = 64 * 1024 * 1024;
/// The look ends after this time with what it found.
const TIME: Duration = Duration::from_secs(8);
/// Best places that are told.
const MAX_FOUND: usize = 10;

/// Finds directories below `whole` (the app's `/`) that hold some of `wanted`, the best first.
pub(crate) fn search(whole: &SyncRoot, wanted: &[Wanted]) -> Result<Vec<FoundPlace>, RootError> {
    if wanted.len() > MAX_WANTED {
        return Err(RootError::Protocol("too many files to look for"));
    }
    let first_names: BTreeSet<&[u8]> =
        wanted.iter().filter_map(|w| w.path.split(|b| *b == b'/').next()).collect();
    let mut found = Vec::new();
    let mut dirs = vec![None::<RelPath>];
    let mut seen = 0;
    let until = Instant::now() + TIME;
    let _ids = whole.enter();
    while let Some(dir) = dirs.pop() {
        seen += 1;
        if seen > MAX_DIRS || Instant::now() > until {
            break;
        }
        let bytes = dir.as_ref().map_or(&[][..], |d| d.as_bytes());
        // procfs, sysfs and their like are refused here, and unreadable directories too.
        let Ok(parent) = whole.directory(bytes) else { continue };
        let Ok(listing) = parent.read_dir(MAX_ENTRIES) else { continue };
        let mut hit = false;
        for entry in listing {
            hit |= first_names.contains(entry.name.as_slice());
            if entry.kind == Some(Kind::Directory) {
                let path =
                    dir.as_ref().map_or_else(|| RelPath::new(entry.name.clone()), |d| d.join(&entry.name));
                dirs.extend(path.ok().map(Some));
            }
        }
        if hit && let Some(dir) = &dir {
            found.extend(rate(whole, dir, wanted));
        }
    }
    found.sort_by_key(|place| std::cmp::Reverse((place.same, place.names)));
    found.truncate(MAX_FOUND);
    Ok(found)
}

/// Counts the wanted files below `dir`, by name and by content.
fn rate(whole: &SyncRoot, dir: &RelPath, wanted: &[Wanted]) -> Option<FoundPlace> {
    let (mut names, mut same) = (0, 0);
    for file in wanted {
        let Ok(path) = dir.join(&file.path) else { continue };
        let opened = whole.parent(&path).and_then(|(parent, leaf)| parent.open_read(leaf));
        let Ok((content, metadata)) = opened else { continue };
        names += 1;
        if metadata.size <= MAX_READ {
            let digest = digest_reader(&mut content.take(MAX_READ));
            same += u32::from(digest.is_ok_and(|digest| digest == file.digest));
        }
    }
    let dir = PodPath::new([b"/", dir.as_bytes()].concat()).ok()?;
    (names > 0).then_some(FoundPlace { dir, names, same })
}
