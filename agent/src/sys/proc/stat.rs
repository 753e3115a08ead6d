//! The fields of `/proc/PID/stat` that identify a process and place it among others. Pure parsing.

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`.
const KERNEL_THREAD: u64 = 0x0020_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: u32,
    pub process_group: u32,
    pub flags: u64,
    /// Clock ticks after boot: field 22.
    pub start_time: u64,
}

impl Stat {
    /// None when the text is not what proc(5) says.
    ///
    /// The command may hold blanks, newlines and parentheses, so fields are counted after the *last* `)`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        // The first of these is field 3 of proc(5).
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).copied();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            // Seen from another PID namespace a group may be 0 or -1.
            process_group: field(5)?.parse().unwrap_or(0),
            flags: field(9)?.parse().ok()?,
            start_time: field(22)?.parse().ok()?,
        })
    }

    pub fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }

    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";

    #[test]
    fn a_command_with_parentheses_and_newlines_does_not_shift_fields() {
        for command in ["sh", "a) R 1 2 3 (b", ")", "x\n) Z 9 9 9", ""] {
            let stat = Stat::parse(format!("42 ({command}) {TAIL}\n").as_bytes());
            let expected =
                Stat { state: b'S', parent: 7, process_group: 42, flags: 4_194_560, start_time: 98765 };
            assert_eq!(stat, Some(expected), "{command:?}");
        }
    }

    #[test]
    fn a_command_that_is_not_utf8_is_read() {
        let mut text = b"42 (\xff\xfe) ".to_vec();
        text.extend(TAIL.bytes());
        assert_eq!(Stat::parse(&text).map(|s| s.start_time), Some(98765));
    }

    #[test]
    fn a_text_cut_anywhere_is_no_stat_and_no_panic() {
        let text = format!("42 (sh) {TAIL}");
        for end in 0..text.find("98765").unwrap_or(0) {
            assert_eq!(Stat::parse(&text.as_bytes()[..end]), None);
        }
    }
}
