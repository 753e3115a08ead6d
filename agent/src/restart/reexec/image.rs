//! The bytes that the app needs in its memory for the calls of a re-exec: strings, pointer arrays, small
//! structures, and the calls that undo. Pure: addresses in, bytes out.

use std::os::unix::ffi::OsStrExt;

use super::arch::{Call, encode_calls};
use super::recorded::Recorded;

/// `struct kernel_sigaction` is at most four words; SIG_IGN is its handler 1.
const ACTION_WORDS: usize = 4;
const SIG_IGN: u64 = 1;
/// The old executable, as long as the old program's memory exists.
const SELF: &[u8] = b"/proc/self/exe";

/// What of the app's state the calls will change, as it is now.
#[derive(Debug, Clone, Default)]
pub(super) struct Before {
    /// Signals that are ignored.
    pub(super) ignored: Vec<i32>,
    /// Descriptors from 3 on that exec would keep.
    pub(super) kept: Vec<i32>,
    /// The mask of blocked signals of the calling thread.
    pub(super) mask: u64,
    /// The file mode creation mask, if another one is wanted.
    pub(super) umask: Option<u32>,
    /// A descriptor of the working directory, if another one is wanted.
    pub(super) directory: Option<i32>,
}

/// The bytes, and the addresses in them.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    pub(super) path: u64,
    pub(super) old_path: u64,
    pub(super) argv: u64,
    pub(super) envp: u64,
    pub(super) cwd: u64,
    /// An action that is SIG_DFL.
    pub(super) default_action: u64,
    /// For each ignored signal the place of its former action.
    pub(super) actions: Vec<u64>,
    /// The list of calls for the way back.
    pub(super) undo_list: u64,
    /// The same calls.
    pub(super) undo: Vec<Call>,
    base: u64,
}

impl Image {
    /// Lays everything out for this address.
    pub(super) fn new(base: u64, recorded: &Recorded, before: &Before) -> Self {
        let mut image = Self { base, ..Self::default() };
        image.path = image.string(recorded.exe.as_os_str().as_bytes());
        image.old_path = image.string(SELF);
        image.cwd = image.string(recorded.cwd.as_os_str().as_bytes());
        let argv: Vec<u64> = recorded.argv.iter().map(|word| image.string(word.as_bytes())).collect();
        let envp: Vec<u64> = recorded.envp.iter().map(|word| image.string(word.as_bytes())).collect();
        image.argv = image.words(argv.into_iter().chain([0]));
        image.envp = image.words(envp.into_iter().chain([0]));
        image.default_action = image.words([0; ACTION_WORDS]);
        image.actions = before.ignored.iter().map(|_| image.words([SIG_IGN, 0, 0, 0])).collect();
        let mask = image.words([before.mask]);
        image.undo = image.undo(before, mask);
        image.undo_list = image.words(encode_calls(&image.undo));
        image
    }

    /// The calls that give back what was; each is harmless where nothing was taken.
    fn undo(&self, before: &Before, mask: u64) -> Vec<Call> {
        let mut calls = Vec::new();
        for (signal, action) in before.ignored.iter().zip(&self.actions) {
            calls.push(Call::new(libc::SYS_rt_sigaction, [*signal as u64, *action, 0, 8]));
        }
        for fd in &before.kept {
            calls.push(Call::new(libc::SYS_fcntl, [*fd as u64, libc::F_SETFD as u64, 0]));
        }
        if let Some(umask) = before.umask {
            calls.push(Call::new(libc::SYS_umask, [u64::from(umask)]));
        }
        if let Some(directory) = before.directory {
            calls.push(Call::new(libc::SYS_fchdir, [directory as u64]));
            calls.push(Call::new(libc::SYS_close, [directory as u64]));
        }
        calls.push(Call::new(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, mask, 0, 8]));
        calls
    }

    fn string(&mut self, bytes: &[u8]) -> u64 {
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(0);
        at
    }

    fn words(&mut self, words: impl IntoIterator<Item = u64>) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend(words.into_iter().flat_map(u64::to_ne_bytes));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word_at(image: &Image, base: u64, at: u64) -> u64 {
        let at = (at - base) as usize;
        u64::from_ne_bytes(image.bytes[at..at + 8].try_into().expect("has eight bytes"))
    }

    #[test]
    fn arguments_are_pointed_at_and_the_size_is_that_of_any_address() {
        let recorded = Recorded {
            exe: "/app/server".into(),
            argv: vec!["server".into(), "".into(), "-v".into()],
            envp: vec!["A=1".into()],
            cwd: "/app".into(),
            umask: 0o22,
            retitled: None,
        };
        let before = Before { ignored: vec![13], kept: vec![5, 7], ..Before::default() };
        let base = 0x7000_0000_0000;
        let image = Image::new(base, &recorded, &before);
        assert_eq!(image.bytes.len(), Image::new(0, &recorded, &before).bytes.len());
        let last = (word_at(&image, base, image.argv + 16) - base) as usize;
        assert_eq!(&image.bytes[last..last + 3], b"-v\0");
        assert_eq!(word_at(&image, base, image.argv + 24), 0);
        assert_eq!(image.undo.len(), 4);
        assert_eq!(word_at(&image, base, image.undo_list + 4 * 40), u64::MAX);
    }
}
