//! The debugger's side of gdb's protocol, as its packets pass: what it put into the app, which gdbserver would leave
//! behind with a lost client, and the app would die of. What would harm the app is written anew. Pure.

use std::collections::BTreeSet;

/// Of a packet no more is kept: breakpoints are named at its beginning.
const KEPT: usize = 2048;
/// More breakpoints than anybody sets.
const MOST: usize = 10_000;
/// What is written anew begins with one of these.
const CHANGED: [&[u8]; 3] = [b"qSupported", b"vKill;", b"k#"];

/// Where in its stream the client is.
#[derive(Debug)]
enum State {
    Between,
    /// `held`: none of it was passed on yet, for it may have to be another one.
    Packet {
        text: Vec<u8>,
        held: bool,
    },
    /// So many digits of a checksum that is ours now.
    Checksum(u8),
}

/// What is known of the client.
#[derive(Debug)]
pub(super) struct Client {
    pid: u32,
    state: State,
    /// `0,4011a6,1`: type, address and kind.
    points: BTreeSet<String>,
    multiprocess: bool,
}

impl Client {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid, state: State::Between, points: BTreeSet::new(), multiprocess: false }
    }

    /// What gdbserver gets for what the client sends.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.pass_byte(*byte, &mut out);
        }
        out
    }

    fn pass_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (byte, &mut self.state) {
            (_, State::Checksum(left @ 2..)) => *left -= 1,
            (_, State::Checksum(_)) => self.state = State::Between,
            (b'$', state) => {
                if let State::Packet { text, held: true } = state {
                    out.append(text);
                }
                self.state = State::Packet { text: Vec::new(), held: true };
                out.push(byte);
            }
            (b'#', State::Packet { text, held }) => {
                let (text, held) = (std::mem::take(text), *held);
                self.end(&text, held, out);
            }
            (byte, State::Packet { text, held }) => {
                if text.len() < KEPT {
                    text.push(byte);
                }
                let may_change =
                    CHANGED.iter().any(|start| text.starts_with(start) || start.starts_with(text));
                match (*held, may_change && text.len() < KEPT) {
                    (true, true) => {}
                    (true, false) => {
                        *held = false;
                        out.extend_from_slice(text);
                    }
                    (false, _) => out.push(byte),
                }
            }
            (byte, State::Between) => out.push(byte),
        }
    }

    /// Looks at a packet that is whole up to its checksum.
    fn end(&mut self, text: &[u8], held: bool, out: &mut Vec<u8>) {
        self.state = State::Between;
        self.take(&String::from_utf8_lossy(text));
        if let Some(other) = self.instead(text).filter(|_| held) {
            out.extend_from_slice(other.as_bytes());
            self.state = State::Checksum(2);
            return;
        }
        if held {
            out.extend_from_slice(text);
        }
        out.push(b'#');
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

    /// The rest of another packet, up to its checksum, for one that would harm the app.
    ///
    /// lldb kills what it did not start itself, where it is left with `quit`. And before version 20 it does not say that
    /// it knows stops at breakpoints: gdbserver then reports them one byte late, as gdb before 7.9 wants it, and the app
    /// would go on in the middle of an instruction. Each gdb says `qRelocInsn`.
    fn instead(&self, packet: &[u8]) -> Option<String> {
        if packet == b"k" || packet.starts_with(b"vKill;") {
            return Some(self.release().split_off(1));
        }
        let packet = std::str::from_utf8(packet).ok().filter(|packet| packet.starts_with("qSupported"))?;
        let is_old_lldb = !packet.contains("swbreak+") && !packet.contains("qRelocInsn");
        let separator = if packet.contains(':') { ';' } else { ':' };
        let known = format!("{packet}{separator}swbreak+;hwbreak+");
        is_old_lldb.then(|| framed(&known).split_off(1))
    }

    /// What takes all out again and detaches.
    fn release(&self) -> String {
        let detach = if self.multiprocess { format!("D;{:x}", self.pid) } else { "D".to_owned() };
        let packets = self.points.iter().map(|point| format!("z{point}")).chain([detach]);
        packets.map(|packet| framed(&packet)).collect::<Vec<_>>().join("+")
    }

    /// What a client that is gone would say. It begins with acknowledgements, which are passed over where none is due:
    /// gdbserver drops the first byte that arrives while the app runs.
    pub(super) fn farewell(&self) -> Vec<u8> {
        format!("++++{}+", self.release()).into_bytes()
    }
}

fn framed(text: &str) -> String {
    let sum = text.bytes().fold(0u8, u8::wrapping_add);
    format!("${text}#{sum:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn what_is_left_in_the_app_is_taken_out() {
        let mut client = Client::of(16);
        assert_eq!(client.farewell(), b"++++$D#44+");
        // In pieces, with conditions, and one that is taken out again.
        for part in [
            &b"+$qSupported:multiprocess+;swbreak+#00$Z0,40"[..],
            b"11a6,1;X3,22#00+$Z1,5,1#00",
            b"$z1,5,1#11",
        ] {
            assert_eq!(client.pass(part), part);
        }
        let farewell = text(client.farewell());
        assert_eq!(farewell, "++++$z0,4011a6,1#90+$D;10#e0+");
        client.pass(b"$Z0,../x,1#00$Z0#00#$");
        assert_eq!(text(client.farewell()), farewell);
    }

    #[test]
    fn lldb_is_told_of_breakpoints_where_they_are() {
        let old = framed("qSupported:xmlRegisters=i386,arm;multiprocess+");
        let said = text(Client::of(16).pass(format!("+{old}$?#3f").as_bytes()));
        let new = framed("qSupported:xmlRegisters=i386,arm;multiprocess+;swbreak+;hwbreak+");
        assert_eq!(said, format!("+{new}$?#3f"));
        // One byte after the other.
        let mut client = Client::of(16);
        let bytewise: Vec<u8> = old.bytes().flat_map(|byte| client.pass(&[byte])).collect();
        assert_eq!(text(bytewise), new);
        let gdb = framed("qSupported:multiprocess+;qRelocInsn+");
        assert_eq!(text(Client::of(16).pass(gdb.as_bytes())), gdb);
    }

    #[test]
    fn a_debugger_that_quits_does_not_kill_the_app() {
        let mut client = Client::of(16);
        client.pass(b"$qSupported:multiprocess+;swbreak+#00$Z0,5,1#00");
        assert_eq!(text(client.pass(b"$k#6b")), format!("{}+{}", framed("z0,5,1"), framed("D;10")));
        client.pass(b"$z0,5,1#00");
        assert_eq!(text(client.pass(b"$vKill;10#00")), framed("D;10"));
        assert_eq!(text(client.pass(b"$kx#e3$vKillx#00")), "$kx#e3$vKillx#00");
    }

    #[test]
    fn all_else_passes_as_it_came() {
        let long = format!("$qSupported:{}#00$M1,2:{}#00", "x".repeat(2 * KEPT), "00".repeat(2 * KEPT));
        for bytes in
            [&b"\x03+-$$$#0$k$#00$qSupport$Z#1$vKil#00##"[..], long.as_bytes(), b"$X1,2:\xff}\x03k#00"]
        {
            let mut client = Client::of(16);
            let bytewise: Vec<u8> = bytes.iter().flat_map(|byte| client.pass(&[*byte])).collect();
            assert_eq!(bytewise, bytes);
            assert_eq!(Client::of(16).pass(bytes), bytes);
        }
    }
}
