//! Attributes in packets, both ways, and the line that `ls -l` of an SFTP client shows. Pure.

use super::wire::{Fields, Packet, Short};
use crate::target::entry::Time;
use crate::target::metadata::{Kind, Metadata};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const MODE: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
/// More than any client sends.
const MOST_EXTENDED: u32 = 64;

/// What a client wants changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) size: Option<u64>,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    /// Access and modification.
    pub(super) times: Option<(Time, Time)>,
}

impl Wanted {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Self, Short> {
        let flags = fields.u32()?;
        let mut wanted = Self::default();
        if flags & SIZE != 0 {
            wanted.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            wanted.owner = Some((fields.u32()?, fields.u32()?));
        }
        if flags & MODE != 0 {
            wanted.mode = Some(fields.u32()? & 0o7777);
        }
        if flags & TIMES != 0 {
            wanted.times = Some(((fields.u32()?.into(), 0), (fields.u32()?.into(), 0)));
        }
        if flags & EXTENDED != 0 {
            let count = fields.u32()?;
            if count > MOST_EXTENDED {
                return Err(Short);
            }
            for _ in 0..count {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(wanted)
    }
}

fn type_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::Symlink => 0o120_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::Device => 0o020_000,
    }
}

/// Appends all attributes of an entry.
pub(super) fn write(packet: Packet, found: &Metadata) -> Packet {
    // Version 3 has 32 bits for a time.
    let seconds = u32::try_from(found.mtime.0.max(0)).unwrap_or(u32::MAX);
    let packet = packet.u32(SIZE | OWNER | MODE | TIMES).u64(found.size).u32(found.uid).u32(found.gid);
    packet.u32(type_bits(found.kind) | found.mode).u32(seconds).u32(seconds)
}

/// The line of `ls -l`; ids are numbers, since the app's user names are not the agent's to know. Times are UTC.
pub(super) fn long_name(name: &[u8], found: &Metadata) -> Vec<u8> {
    let line = format!(
        "{} {:>4} {:<8} {:<8} {:>8} {} ",
        permissions(found),
        found.links,
        found.uid,
        found.gid,
        found.size,
        date(found.mtime.0)
    );
    [line.as_bytes(), name].concat()
}

fn permissions(found: &Metadata) -> String {
    let kind = match found.kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::Device => 'c',
    };
    let bit = |mask: u32, letter: char| if found.mode & mask != 0 { letter } else { '-' };
    let execute =
        |mask: u32, special: u32, letter: char| match (found.mode & mask != 0, found.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(bit(4 << shift, 'r'));
        text.push(bit(2 << shift, 'w'));
        text.push(execute(1 << shift, special, letter));
    }
    text
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Nov 22 2026`: the year is never a guess, and nothing here reads a clock.
fn date(seconds: i64) -> String {
    // Days from civil, backwards: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 2 } else { shifted - 10 };
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or("Jan");
    format!("{month} {day:>2} {year:>5}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "Jan  1  1970");
        assert_eq!(date(1_709_164_800), "Feb 29  2024");
        assert_eq!(date(1_795_353_078), "Nov 22  2026");
        assert_eq!(date(-1), "Dec 31  1969");
    }

    #[test]
    fn attributes_are_read_in_the_order_of_their_flags() {
        let bytes = Packet::new(0).u32(SIZE | MODE | TIMES).u64(5).u32(0o100_644).u32(1).u32(2).finish();
        let wanted = Wanted::read(&mut Fields::of(&bytes[5..])).expect("read");
        let expected =
            Wanted { size: Some(5), mode: Some(0o644), times: Some(((1, 0), (2, 0))), owner: None };
        assert_eq!(wanted, expected);
        let many = Packet::new(0).u32(EXTENDED).u32(u32::MAX).finish();
        assert_eq!(Wanted::read(&mut Fields::of(&many[5..])), Err(Short));
    }

    #[test]
    fn a_long_line_shows_kind_and_special_bits() {
        let found = Metadata {
            kind: Kind::Directory,
            mode: 0o1750,
            size: 4096,
            uid: 7,
            gid: 8,
            mtime: (0, 0),
            ctime: (0, 0),
            links: 2,
            device: 0,
            inode: 0,
        };
        let line = String::from_utf8(long_name(b"tmp", &found)).expect("text");
        assert_eq!(line, "drwxr-x--T    2 7        8            4096 Jan  1  1970 tmp");
    }
}
