//! What gdb put into the app, read from its packets as they pass: gdbserver leaves breakpoints behind when its client
//! is lost, and the app would die of the first that it meets. Pure.

use std::collections::BTreeSet;

/// Of a packet no more is kept: breakpoints are named at its beginning.
const KEPT: usize = 256;
/// More breakpoints than anybody sets.
const MOST: usize = 10_000;

/// The state of gdb's side of the protocol.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    /// The packet that is being read.
    packet: Option<Vec<u8>>,
    /// `0,4011a6,1`: type, address and kind.
    points: BTreeSet<String>,
    multiprocess: bool,
}

impl Inserted {
    /// Looks at what gdb sends.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (byte, &mut self.packet) {
                (b'$', _) => self.packet = Some(Vec::new()),
                (b'#', packet) => {
                    let packet = packet.take().unwrap_or_default();
                    self.take(&String::from_utf8_lossy(&packet));
                }
                (byte, Some(packet)) if packet.len() < KEPT => packet.push(*byte),
                _ => {}
            }
        }
    }

    fn take(&mut self, packet: &str) {
        let point = || {
            let rest = packet.get(1..)?.split(';').next()?;
            let usual = |c: char| c.is_ascii_hexdigit() || c == ',';
            (rest.matches(',').count() == 2 && rest.chars().all(usual)).then(|| rest.to_owned())
        };
        match packet.as_bytes().first() {
            Some(b'Z') if self.points.len() < MOST => self.points.extend(point()),
            Some(b'z') => {
                if let Some(point) = point() {
                    self.points.remove(&point);
                }
            }
            _ if packet.starts_with("qSupported") => self.multiprocess = packet.contains("multiprocess+"),
            _ => {}
        }
    }

    /// What takes all out again and detaches. It begins with acknowledgements, which are passed over where none is due:
    /// gdbserver drops the first byte that arrives while the app runs.
    pub(super) fn undo(&self, pid: u32) -> Vec<u8> {
        let detach = if self.multiprocess { format!("D;{pid:x}") } else { "D".to_owned() };
        let packets = self.points.iter().map(|point| format!("z{point}")).chain([detach]);
        let packet = |text: String| {
            let sum = text.bytes().fold(0u8, u8::wrapping_add);
            format!("${text}#{sum:02x}+")
        };
        let text: String = packets.map(packet).collect();
        format!("++++{text}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_the_app_is_taken_out() {
        let mut inserted = Inserted::default();
        assert_eq!(inserted.undo(16), b"++++$D#44+");
        // In pieces, with conditions, and one that is taken out again.
        for part in
            [&b"+$qSupported:multiprocess+;x#00$Z0,40"[..], b"11a6,1;X3,22#00+$Z1,5,1#00", b"$z1,5,1#11"]
        {
            inserted.see(part);
        }
        let undo = String::from_utf8(inserted.undo(16)).expect("text");
        assert_eq!(undo, "++++$z0,4011a6,1#90+$D;10#e0+");
        inserted.see(b"$Z0,../x,1#00$Z0#00#$");
        assert_eq!(String::from_utf8(inserted.undo(16)).expect("text"), undo);
    }
}
