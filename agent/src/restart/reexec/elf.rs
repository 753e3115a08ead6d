//! What the kernel will ask of an executable's first bytes: ELF of this machine, whole, and its interpreter.
//! Reads only; a file that passes here can still be a program that does not work.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::arch::ELF_MACHINE;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
/// What the kernel accepts: a page of program headers.
const MAX_SEGMENTS: u16 = 73;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MAX_PATH: u64 = 4096;
/// How much of a script's first line the kernel reads.
const SCRIPT_LINE: usize = 256;

/// Why the kernel would refuse, or kill at its first step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    #[error("it is neither an ELF executable nor a script that begins with #!")]
    Unknown,
    #[error("it is a 32-bit or foreign-endian executable")]
    Class,
    #[error("it is built for another processor (ELF machine {found}, here {ELF_MACHINE})")]
    Machine { found: u16 },
    #[error("it is no executable but an object of ELF type {0}")]
    Type(u16),
    #[error("its program headers are damaged")]
    Headers,
    #[error("it is cut off: {size} of {needed} bytes")]
    Truncated { size: u64, needed: u64 },
    #[error("cannot read it")]
    Read(#[from] io::Error),
}

/// The program that the kernel loads to run this file, if any: a dynamic linker, or a script's interpreter.
pub(super) fn interpreter(file: &File, size: u64) -> Result<Option<PathBuf>, ElfError> {
    let mut start = [0u8; SCRIPT_LINE];
    let got = read_up_to(file, &mut start)?;
    let start = &start[..got];
    if let Some(line) = start.strip_prefix(b"#!") {
        return script_interpreter(line).map(Some);
    }
    if !start.starts_with(b"\x7fELF") || start.len() < HEADER {
        return Err(ElfError::Unknown);
    }
    if start[4] != CLASS_64 || start[5] != LITTLE_ENDIAN {
        return Err(ElfError::Class);
    }
    let machine = u16_at(start, 18);
    if machine != ELF_MACHINE {
        return Err(ElfError::Machine { found: machine });
    }
    let kind = u16_at(start, 16);
    if kind != ET_EXEC && kind != ET_DYN {
        return Err(ElfError::Type(kind));
    }
    elf_interpreter(file, size, start)
}

fn elf_interpreter(file: &File, size: u64, header: &[u8]) -> Result<Option<PathBuf>, ElfError> {
    let count = u16_at(header, 56);
    if count == 0 || count > MAX_SEGMENTS || usize::from(u16_at(header, 54)) != SEGMENT {
        return Err(ElfError::Headers);
    }
    let mut table = vec![0u8; SEGMENT * usize::from(count)];
    file.read_exact_at(&mut table, u64_at(header, 32)).map_err(|_| ElfError::Headers)?;
    let (mut found, mut loads) = (None, false);
    for segment in table.chunks_exact(SEGMENT) {
        let (offset, length) = (u64_at(segment, 8), u64_at(segment, 32));
        let needed = offset.checked_add(length).ok_or(ElfError::Headers)?;
        match u32::from_le_bytes([segment[0], segment[1], segment[2], segment[3]]) {
            PT_LOAD if needed > size => return Err(ElfError::Truncated { size, needed }),
            PT_LOAD => loads = true,
            PT_INTERP if found.is_none() => found = Some(path_at(file, offset, length)?),
            _ => {}
        }
    }
    if loads { Ok(found) } else { Err(ElfError::Headers) }
}

fn path_at(file: &File, offset: u64, length: u64) -> Result<PathBuf, ElfError> {
    if !(2..=MAX_PATH).contains(&length) {
        return Err(ElfError::Headers);
    }
    let mut path = vec![0u8; length as usize];
    file.read_exact_at(&mut path, offset).map_err(|_| ElfError::Headers)?;
    if path.pop() != Some(0) {
        return Err(ElfError::Headers);
    }
    Ok(std::ffi::OsString::from_vec(path).into())
}

fn script_interpreter(line: &[u8]) -> Result<PathBuf, ElfError> {
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let word = line.split(|b| b" \t\0".contains(b)).find(|word| !word.is_empty());
    word.map(|word| std::ffi::OsString::from_vec(word.to_vec()).into()).ok_or(ElfError::Unknown)
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], got as u64)? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> (File, u64) {
        let mut file = tempfile::tempfile().expect("makes a file");
        file.write_all(bytes).expect("writes");
        (file, bytes.len() as u64)
    }

    #[test]
    fn this_test_is_an_executable_with_an_interpreter() {
        let file = File::open("/proc/self/exe").expect("opens");
        let size = file.metadata().expect("has metadata").len();
        let found = interpreter(&file, size).expect("is accepted").expect("is dynamic");
        assert!(found.exists(), "{found:?}");
    }

    #[test]
    fn every_truncation_of_an_executable_is_refused() {
        let whole = std::fs::read("/bin/true").expect("reads");
        for length in [0, 1, 4, 63, 64, 100, 500, whole.len() / 2] {
            let (file, size) = file_of(&whole[..length]);
            assert!(interpreter(&file, size).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_machine_is_named() {
        let mut other = std::fs::read("/bin/true").expect("reads");
        other[18] = 8;
        let (file, size) = file_of(&other);
        assert!(matches!(interpreter(&file, size), Err(ElfError::Machine { found: 8 })));
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let (file, size) = file_of(b"#! /usr/bin/env python3\nprint(1)\n");
        assert_eq!(interpreter(&file, size).expect("reads"), Some("/usr/bin/env".into()));
        let (file, size) = file_of(b"#!\n");
        assert!(interpreter(&file, size).is_err());
    }
}
