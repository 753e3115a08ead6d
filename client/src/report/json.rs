//! JSON as devsync prints it: plain for a terminal, and equal to what it was when it is parsed.

use serde::Serialize;

use super::plain::steers;

/// In one line.
pub fn json(value: &impl Serialize) -> String {
    written_out(&serde_json::to_string(value).unwrap_or_default())
}

/// For a person to read.
pub fn json_pretty(value: &impl Serialize) -> String {
    written_out(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// serde_json escapes what is below U+0020 and nothing else. All other characters that steer a terminal can only lie
/// within strings, so that each may be written as an escape.
fn written_out(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            ' '..='~' | '\n' => shown.push(c),
            c if steers(c) => shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|n| format!("\\u{n:04x}"))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Any characters, and each that must not reach a terminal often.
    fn text() -> impl Strategy<Value = String> {
        let steering = prop_oneof![
            0..=0x1fu32,
            0x7f..=0x9fu32,
            0x2028..=0x202eu32,
            0x2066..=0x2069u32,
            Just(0x61c),
            0x200e..=0x200fu32,
        ];
        let steering = steering.prop_map(|c| char::from_u32(c).expect("a character"));
        prop::collection::vec(prop_oneof![any::<char>(), steering], 0..40).prop_map(String::from_iter)
    }

    fn is_plain(printed: &str) -> bool {
        printed.chars().all(|c| c == '\n' || !(c.is_control() || steers(c)))
    }

    proptest! {
        #[test]
        fn what_is_printed_is_plain_and_parses_to_the_same(values in prop::collection::btree_map(text(), text(), 0..4)) {
            for printed in [json(&values), json_pretty(&values)] {
                prop_assert!(is_plain(&printed), "{printed:?}");
                prop_assert_eq!(&serde_json::from_str::<BTreeMap<String, String>>(&printed).expect("JSON"), &values);
            }
            prop_assert!(!json(&values).contains('\n'));
        }
    }

    #[test]
    fn a_terminal_that_reads_events_is_not_steered() {
        let name = "a\u{9b}2J\u{7f}\u{85}\u{202e}\u{2066}\u{200f}\u{61c}é\u{1b}😀";
        let printed = json(&name);
        assert_eq!(printed, r#""a\u009b2J\u007f\u0085\u202e\u2066\u200f\u061cé\u001b😀""#);
        assert_eq!(serde_json::from_str::<String>(&printed).expect("JSON"), name);
    }
}
