//! The options before a key in an authorized_keys file (sshd(8)): each is honoured, or the line is refused. Pure.
//!
//! What would give back what is never given (`agent-forwarding`, …) holds anyway. An option that promises more than
//! what is done here refuses its line.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum OptionError {
    #[error("the options cannot be read")]
    Malformed,
    #[error("option {0:?} is not supported")]
    Unsupported(String),
    #[error("expiry-time {0:?} is not YYYYMMDD[HHMM[SS]]Z (hint: the Z, for UTC, must be there)")]
    Expiry(String),
    #[error(
        "from pattern {0:?} is not an address, ADDRESS/BITS or an address with * and ? (names are not looked up)"
    )]
    From(String),
}

/// What the options of a key demand.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct KeyOptions {
    pub(super) expires: Option<SystemTime>,
    /// Every list must match.
    from: Vec<Vec<Pattern>>,
    pub(super) rights: Rights,
}

/// What a login is good for, beside sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) terminal: bool,
    /// Ports and sockets, both ways.
    pub(super) forwards: bool,
    /// Runs in the place of whatever is asked for: subsystems, a command, a shell.
    pub(super) command: Option<String>,
    /// A shell in the agent's own container: for who could have started one there without a key.
    pub(super) beside: bool,
}

impl Default for Rights {
    fn default() -> Self {
        Self { terminal: true, forwards: true, command: None, beside: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    negated: bool,
    what: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Network(IpAddr, u32),
    Glob(String),
}

impl KeyOptions {
    pub(super) fn parse(text: &str) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for option in split(text)? {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(unquote(value)?)),
                None => (option, None),
            };
            match (name.to_ascii_lowercase().as_str(), value.as_deref()) {
                (
                    "no-agent-forwarding"
                    | "no-x11-forwarding"
                    | "no-user-rc"
                    | "agent-forwarding"
                    | "x11-forwarding"
                    | "user-rc",
                    None,
                ) => {}
                ("restrict", None) => {
                    options.rights.terminal = false;
                    options.rights.forwards = false;
                }
                (option @ ("pty" | "no-pty"), None) => options.rights.terminal = option == "pty",
                (option @ ("port-forwarding" | "no-port-forwarding"), None) => {
                    options.rights.forwards = option == "port-forwarding";
                }
                ("command", Some(value)) => options.rights.command = Some(value.to_owned()),
                ("expiry-time", Some(value)) => {
                    let expires = expiry(value).ok_or_else(|| OptionError::Expiry(value.to_owned()))?;
                    options.expires = Some(options.expires.map_or(expires, |other| other.min(expires)));
                }
                ("from", Some(value)) => {
                    options.from.push(value.split(',').map(pattern).collect::<Result<_, _>>()?);
                }
                _ => return Err(OptionError::Unsupported(option.to_owned())),
            }
        }
        Ok(options)
    }

    /// May a login come from there? As in OpenSSH a negated pattern that matches decides.
    pub(super) fn permits_source(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.from.iter().all(|list| {
            let (negated, plain): (Vec<&Pattern>, Vec<&Pattern>) = list.iter().partition(|p| p.negated);
            !negated.iter().any(|p| p.what.matches(source)) && plain.iter().any(|p| p.what.matches(source))
        })
    }
}

/// The options, at commas outside of quotes. (`ssh_key`'s own splitter knows no blanks in quotes, and no `\"`.)
fn split(text: &str) -> Result<Vec<&str>, OptionError> {
    let mut options = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b',' if !quoted => {
                options.push(text.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            byte if byte.is_ascii_control() && byte != b'\t' => return Err(OptionError::Malformed),
            _ => {}
        }
        escaped = byte == b'\\';
    }
    if quoted {
        return Err(OptionError::Malformed);
    }
    if !text.is_empty() {
        options.push(text.get(start..).unwrap_or_default());
    }
    Ok(options)
}

/// A value's quotes are taken off, and `\"` inside means `"`, as in OpenSSH.
fn unquote(value: &str) -> Result<String, OptionError> {
    let inner =
        value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(OptionError::Malformed)?;
    let plain = inner.replace("\\\"", "");
    if plain.contains('"') { Err(OptionError::Malformed) } else { Ok(inner.replace("\\\"", "\"")) }
}

fn pattern(text: &str) -> Result<Pattern, OptionError> {
    let (negated, body) = text.strip_prefix('!').map_or((false, text), |body| (true, body));
    source(body).map(|what| Pattern { negated, what }).ok_or_else(|| OptionError::From(text.to_owned()))
}

fn source(text: &str) -> Option<Source> {
    if let Some((address, bits)) = text.split_once('/') {
        let (address, bits): (IpAddr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        let (value, width) = value(address);
        let host_bits = width.checked_sub(bits)?;
        // A network with host bits is a typing error, in OpenSSH too.
        let inside = host_bits < 128 && (value >> host_bits) << host_bits == value;
        return (inside || (host_bits == 128 && value == 0)).then_some(Source::Network(address, bits));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Source::Network(address, value(address).1));
    }
    let is_glob = text.contains(['*', '?'])
        && text.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '*' | '?'));
    is_glob.then(|| Source::Glob(text.to_ascii_lowercase()))
}

/// An address as a number, and how many bits it has.
fn value(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

impl Source {
    fn matches(&self, source: IpAddr) -> bool {
        match self {
            Self::Network(network, bits) => {
                let ((ours, width), (theirs, other)) = (value(*network), value(source));
                let differing = ours ^ theirs;
                width == other && differing.checked_shr(width - bits).unwrap_or(0) == 0
            }
            Self::Glob(glob) => glob_matches(glob.as_bytes(), source.to_string().as_bytes()),
        }
    }
}

/// `*` and `?`; linear in time but for one step back, so a hostile pattern costs nothing.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t, mut star) = (0, 0, None);
    while let Some(c) = text.get(t) {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g + 1, t));
                g += 1;
            }
            Some(p) if p == c || *p == b'?' => (g, t) = (g + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    (g, t) = (after, from + 1);
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|p| *p == b'*'))
}

/// `YYYYMMDDZ`, `YYYYMMDDHHMMZ` or `YYYYMMDDHHMMSSZ`. Without the Z it would be local time, which the pod and the
/// person who wrote the line need not agree about.
fn expiry(text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z')?;
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Some(0), |part| part.parse::<u64>().ok());
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day)? * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Days of the Gregorian calendar, from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = |month: u64| match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap(year)),
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || !(1..=length(month)).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    Some(years + (1..month).map(length).sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(options: &str, source: &str) -> bool {
        let options = KeyOptions::parse(options).expect("readable options");
        options.permits_source(source.parse().expect("an address"))
    }

    #[test]
    fn what_only_takes_away_is_honoured() {
        let rights = |text| KeyOptions::parse(text).expect("accepted").rights;
        let none = Rights { terminal: false, forwards: false, command: None, beside: false };
        assert_eq!(rights("restrict,no-pty,no-X11-forwarding"), none);
        assert_eq!(rights("restrict,pty"), Rights { terminal: true, ..none.clone() });
        assert_eq!(rights("no-port-forwarding"), Rights { terminal: true, ..none.clone() });
        assert_eq!(rights("restrict,command=\"a, b\""), Rights { command: Some("a, b".to_owned()), ..none });
        assert_eq!(rights("user-rc"), Rights::default());
        assert_eq!(rights(r#"command="say \"a, b\"""#).command.as_deref(), Some(r#"say "a, b""#));
    }

    #[test]
    fn what_is_not_understood_refuses_the_line() {
        for text in [
            "command",
            "command=\"a \\\"b",
            "command=\"a\"b\"",
            "permitopen=\"localhost:1\"",
            "environment=\"A=b\"",
            "cert-authority",
            "verify-required",
            "from",
            "expiry-time",
            "no-pty=\"x\"",
            "from=\"10.0.0.1",
            "from=\"example.org\"",
            "from=\"10.0.0.1/8\"",
            "from=\"10.0.0.0/33\"",
            "from=\"\"",
        ] {
            assert!(KeyOptions::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sources_match_as_in_openssh() {
        assert!(permits("from=\"10.0.0.0/8,127.0.0.1\"", "127.0.0.1"));
        assert!(permits("from=\"10.0.0.0/8,127.0.0.1\"", "10.255.1.2"));
        assert!(!permits("from=\"10.0.0.0/8,127.0.0.1\"", "11.0.0.1"));
        assert!(!permits("from=\"10.0.0.0/8,!10.1.0.0/16\"", "10.1.2.3"));
        assert!(!permits("from=\"!10.1.0.0/16\"", "10.2.2.3"));
        assert!(permits("from=\"192.168.?.*\"", "192.168.7.55"));
        assert!(!permits("from=\"192.168.?.*\"", "192.168.77.5"));
        assert!(permits("from=\"0.0.0.0/0\"", "::ffff:1.2.3.4"));
        assert!(!permits("from=\"0.0.0.0/0\"", "::1"));
        assert!(permits("from=\"::/0\"", "fe80::1"));
        assert!(!permits("from=\"10.0.0.0/8\",from=\"11.0.0.0/8\"", "10.0.0.1"));
    }

    #[test]
    fn expiry_times_are_utc() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(expiry("19700101Z"), at(0));
        assert_eq!(expiry("20240229Z"), at(1_709_164_800));
        assert_eq!(expiry("20261122131118Z"), at(1_795_353_078));
        for text in ["20240230Z", "20240101", "2024Z", "20241301Z", "202401012460Z", "２0240101Z"] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }
}
