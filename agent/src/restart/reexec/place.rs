//! Where in the app's memory the stub goes: bytes of executable pages that no code will ever reach.
//! Chooses and reads; writes nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::sys::proc_task::{self, Mapping};

/// Address and former content of the bytes that the stub replaces.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) former: Vec<u8>,
}

const PAGE: u64 = 4096;
const WORD: u64 = 8;
const VDSO: &str = "[vdso]";

/// A place of this many bytes. First choice: the unused end of the vdso's last page, then that of any program
/// text. Last: the beginning of a text, whose bytes are put back.
pub(super) fn find(pid: i32, memory: &File, size: usize) -> Option<Place> {
    let size = size.next_multiple_of(WORD as usize);
    let mappings = proc_task::mappings(pid).ok()?;
    let texts = || mappings.iter().filter(|m| m.private_code && !m.name.starts_with("[v"));
    let vdso = mappings.iter().filter(|m| m.name == VDSO);
    vdso.chain(texts()).find_map(|mapping| unused_end(memory, mapping, size)).or_else(|| {
        texts().find_map(|mapping| read(memory, mapping.start.next_multiple_of(PAGE) + WORD, size))
    })
}

/// The zeros at the end of a mapping's last page: what a file or image does not fill.
fn unused_end(memory: &File, mapping: &Mapping, size: usize) -> Option<Place> {
    let at = mapping.end.checked_sub(size as u64)?;
    if size as u64 + WORD > PAGE || at - WORD < mapping.start {
        return None;
    }
    // One zero word more in front: the first zeros may belong to what ends there.
    let with_gap = read(memory, at - WORD, size + WORD as usize)?;
    with_gap.former.iter().all(|byte| *byte == 0).then(|| Place { at, former: vec![0; size] })
}

fn read(memory: &File, at: u64, size: usize) -> Option<Place> {
    let mut former = vec![0; size];
    memory.read_exact_at(&mut former, at).ok()?;
    Some(Place { at, former })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_unused_and_executable() {
        let pid = std::process::id() as i32;
        let memory = proc_task::memory(pid).expect("opens");
        let place = find(pid, &memory, 400).expect("has a place");
        assert!(place.former.iter().all(|byte| *byte == 0));
        let mappings = proc_task::mappings(pid).expect("reads");
        let around =
            mappings.iter().find(|m| (m.start..m.end).contains(&place.at)).expect("lies in a mapping");
        assert!(around.private_code && place.at + 400 <= around.end);
    }
}
