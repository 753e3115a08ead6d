//! What identifies a build: the notes of an ELF file, and the Go it was built with. Pure: bytes come from a reader, and
//! what it gives is not trusted.

/// More program headers than a linker makes.
const MAX_HEADERS: usize = 128;
/// Notes are some hundred bytes.
const MAX_NOTES: u64 = 64 * 1024;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const NT_GO_BUILD_ID: u32 = 4;
/// What Go puts before its version (debug/buildinfo).
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// The version follows inline from Go 1.18 on.
const GO_INLINE: u8 = 2;
const GO_HEADER: usize = 32;
const WINDOW: usize = 1 << 20;
/// No further than this is searched for Go's version.
const SEARCHED: u64 = 1 << 30;

/// Reads at most `len` bytes at an offset; none where that fails.
pub type ReadAt<'r> = dyn FnMut(u64, usize) -> Option<Vec<u8>> + 'r;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildId {
    /// GNU's build id in hexadecimal digits.
    pub gnu: Option<String>,
    /// Go's own.
    pub go: Option<String>,
}

impl BuildId {
    /// Of a 64-bit little-endian ELF file; empty for anything else.
    pub fn read(read: &mut ReadAt<'_>) -> Self {
        let mut found = Self::default();
        for (at, len) in notes(read).unwrap_or_default() {
            let bytes = read(at, usize::try_from(len.min(MAX_NOTES)).unwrap_or(0)).unwrap_or_default();
            found.take(&bytes);
        }
        found
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((kind, name, value, rest)) = note(bytes) {
            match (kind, name) {
                (NT_GNU_BUILD_ID, b"GNU\0") => {
                    self.gnu = Some(value.iter().map(|byte| format!("{byte:02x}")).collect());
                }
                (NT_GO_BUILD_ID, b"Go\0\0") => self.go = Some(String::from_utf8_lossy(value).into_owned()),
                _ => {}
            }
            bytes = rest;
        }
    }

    /// Whether both are of one build; none where they have nothing to compare.
    pub fn is(&self, other: &Self) -> Option<bool> {
        let pairs = [(&self.gnu, &other.gnu), (&self.go, &other.go)];
        pairs.into_iter().find_map(|(a, b)| Some(a.as_ref()? == b.as_ref()?))
    }

    /// For people.
    pub fn shown(&self) -> Option<&str> {
        self.gnu.as_deref().or(self.go.as_deref())
    }
}

/// Where the notes are: offset and length.
fn notes(read: &mut ReadAt<'_>) -> Option<Vec<(u64, u64)>> {
    let header = read(0, 64)?;
    if header.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = u64::from_le_bytes(header.get(32..40)?.try_into().ok()?);
    let size = usize::from(u16::from_le_bytes(header.get(54..56)?.try_into().ok()?));
    let count = usize::from(u16::from_le_bytes(header.get(56..58)?.try_into().ok()?)).min(MAX_HEADERS);
    if size < 56 {
        return None;
    }
    let bytes = read(table, size * count)?;
    let entries = bytes.chunks_exact(size).filter_map(|entry| {
        let kind = u32::from_le_bytes(entry.get(..4)?.try_into().ok()?);
        let at = u64::from_le_bytes(entry.get(8..16)?.try_into().ok()?);
        let len = u64::from_le_bytes(entry.get(32..40)?.try_into().ok()?);
        (kind == PT_NOTE).then_some((at, len))
    });
    Some(entries.collect())
}

/// A note's type, name and value, and what follows it.
type Note<'n> = (u32, &'n [u8], &'n [u8], &'n [u8]);

/// The first note.
fn note(bytes: &[u8]) -> Option<Note<'_>> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
    let (name_len, value_len, kind) = (word(0)?, word(4)?, word(8)?);
    let value_at = padded(name_len)?.checked_add(12)?;
    let next = value_at.checked_add(padded(value_len)?)?;
    let name = bytes.get(12..12usize.checked_add(usize::try_from(name_len).ok()?)?)?;
    let value = bytes.get(value_at..value_at.checked_add(usize::try_from(value_len).ok()?)?)?;
    Some((kind, name, value, bytes.get(next..).unwrap_or_default()))
}

/// The version of Go that built a file: `go1.19.8`; none for a program of another language.
pub fn go_version(read: &mut ReadAt<'_>) -> Option<String> {
    let mut at = 0;
    while at < SEARCHED {
        let window = read(at, WINDOW)?;
        if let Some(found) = window.windows(GO_MAGIC.len()).position(|part| part == GO_MAGIC) {
            return inline_version(&read(at + u64::try_from(found).ok()?, GO_HEADER + 256)?);
        }
        // It lies on a multiple of 16, so it is never cut by the windows' borders if they overlap by that.
        at += u64::try_from(window.len().checked_sub(GO_MAGIC.len())?.max(1)).ok()?;
        if window.len() < WINDOW {
            return None;
        }
    }
    None
}

fn inline_version(bytes: &[u8]) -> Option<String> {
    if bytes.get(15)? & GO_INLINE == 0 {
        return None;
    }
    // A length below 128 is one byte.
    let len = usize::from(*bytes.get(GO_HEADER)?);
    let text = bytes.get(GO_HEADER + 1..GO_HEADER + 1 + len)?;
    let text = std::str::from_utf8(text).ok()?;
    text.starts_with("go").then(|| text.split(' ').next().unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> impl FnMut(u64, usize) -> Option<Vec<u8>> + '_ {
        move |at, len| {
            let rest = bytes.get(usize::try_from(at).ok()?..)?;
            Some(rest.get(..len).unwrap_or(rest).to_vec())
        }
    }

    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        file[72..80].copy_from_slice(&120u64.to_le_bytes());
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend_from_slice(notes);
        file
    }

    #[test]
    fn both_kinds_of_notes_are_read() {
        let mut notes = Vec::new();
        for (kind, name, value) in
            [(5, b"GNU\0", &b"x"[..]), (3, b"GNU\0", &[1, 0xab]), (4, b"Go\0\0", b"a/b")]
        {
            notes.extend(4u32.to_le_bytes());
            notes.extend((value.len() as u32).to_le_bytes());
            notes.extend(u32::to_le_bytes(kind));
            notes.extend(name);
            notes.extend(value);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let file = elf(&notes);
        let id = BuildId::read(&mut reader(&file));
        assert_eq!((id.gnu.as_deref(), id.go.as_deref()), (Some("01ab"), Some("a/b")));
        assert_eq!(id.is(&id), Some(true));
        assert_eq!(id.is(&BuildId { gnu: Some("02".into()), go: id.go.clone() }), Some(false));
        assert_eq!(id.is(&BuildId::default()), None);
        // Whatever is missing, nothing is made up.
        for len in 0..file.len() {
            let part = BuildId::read(&mut reader(&file[..len]));
            assert!(part.gnu.is_none() || part.gnu == id.gnu);
        }
        let huge = elf(&[[0xff; 12].as_slice(), b"GNU\0"].concat());
        assert_eq!(BuildId::read(&mut reader(&huge)), BuildId::default());
    }

    #[test]
    fn go_s_version_is_found_across_windows() {
        let mut file = vec![0; WINDOW - 8];
        file.extend(GO_MAGIC);
        file.extend([8, GO_INLINE]);
        file.extend([0; 16]);
        file.extend(b"\x08go1.19.8");
        assert_eq!(go_version(&mut reader(&file)).as_deref(), Some("go1.19.8"));
        assert_eq!(go_version(&mut reader(&file[..file.len() - 1])), None);
        assert_eq!(go_version(&mut reader(b"")), None);
    }
}
