//! `/proc/PID/status`: ids, capabilities, signals, seccomp. Pure parsing.

use devsync_protocol::target::CapSet;

/// For a process whose own is not known.
pub const USUAL_UMASK: u32 = 0o022;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The state's letter: `R`, `S`, `T`, `t`, `D`, `Z`.
    pub state: char,
    pub thread_group: u32,
    pub parent: u32,
    /// 0 when nobody traces it.
    pub tracer: u32,
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// None for a zombie, and before Linux 4.7.
    pub umask: Option<u32>,
    pub cap_permitted: CapSet,
    pub cap_effective: CapSet,
    pub cap_bounding: CapSet,
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// None before Linux 5.9.
    pub seccomp_filters: Option<u32>,
    /// Pending for this thread or its process. Bit N-1 stands for signal N, here and below.
    pub sig_pending: u64,
    pub sig_blocked: u64,
    pub sig_ignored: u64,
    pub sig_caught: u64,
    /// Its id in each PID namespace, from the reader's to its own.
    pub namespace_pids: Vec<u32>,
    pub threads: u32,
}

impl Status {
    /// None when ids or capabilities are missing; fields that older kernels lack stay at 0.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        let mut seen = 0;
        for line in text.split(|b| *b == b'\n') {
            // The kernel escapes newlines in the command, so a line begins with its key.
            let Some((key, value)) = std::str::from_utf8(line).ok().and_then(|l| l.split_once(':')) else {
                continue;
            };
            let value = value.trim();
            match key {
                "State" => status.state = value.chars().next()?,
                "PPid" => status.parent = value.parse().ok()?,
                "Tgid" => status.thread_group = value.parse().ok()?,
                "TracerPid" => status.tracer = value.parse().ok()?,
                "Uid" => (status.uids, seen) = (four(value)?, seen + 1),
                "Gid" => (status.gids, seen) = (four(value)?, seen + 1),
                "Groups" => status.groups = numbers(value),
                "Umask" => status.umask = Some(u32::from_str_radix(value, 8).ok()?),
                "CapPrm" => (status.cap_permitted, seen) = (CapSet(hex(value)?), seen + 1),
                "CapEff" => (status.cap_effective, seen) = (CapSet(hex(value)?), seen + 1),
                "CapBnd" => status.cap_bounding = CapSet(hex(value)?),
                "NoNewPrivs" => status.no_new_privs = value == "1",
                "Seccomp" => status.seccomp = value.parse().ok()?,
                "Seccomp_filters" => status.seccomp_filters = Some(value.parse().ok()?),
                "SigPnd" | "ShdPnd" => status.sig_pending |= hex(value)?,
                "SigBlk" => status.sig_blocked = hex(value)?,
                "SigIgn" => status.sig_ignored = hex(value)?,
                "SigCgt" => status.sig_caught = hex(value)?,
                "Threads" => status.threads = value.parse().ok()?,
                "NSpid" => status.namespace_pids = numbers(value),
                _ => {}
            }
        }
        (seen == 4).then_some(status)
    }

    /// Dead, and perhaps not yet collected.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// The ids that make the app what it is, when real, effective and saved ones agree.
    pub fn uniform_ids(&self) -> Option<(u32, u32)> {
        let same = |ids: &[u32; 4]| ids[0] == ids[1] && ids[1] == ids[2];
        (same(&self.uids) && same(&self.gids)).then_some((self.uids[1], self.gids[1]))
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
}

fn four(text: &str) -> Option<[u32; 4]> {
    numbers(text).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\tUid:\\n0\nTgid:\t9\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\n\
        NSpid:\t9\t1\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000001\nSeccomp:\t2\nSigBlk:\t0000000000004000\n";

    #[test]
    fn fields_are_read_and_a_forged_name_is_not() {
        let status = Status::parse(TEXT.as_bytes()).expect("a status");
        assert_eq!(status.uids, [1, 2, 3, 4]);
        assert_eq!(status.cap_permitted, CapSet(0xa804_25fb));
        assert_eq!(status.namespace_pids, [9, 1]);
        assert_eq!(status.sig_blocked, 1 << 14);
        assert_eq!(status.uniform_ids(), None);
    }

    #[test]
    fn a_text_without_ids_is_no_status() {
        assert_eq!(Status::parse(b"Name:\tsh\nTgid:\t9\n"), None);
        assert_eq!(Status::parse(b""), None);
    }
}
