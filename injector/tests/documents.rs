//! Streams of documents: what is not changed keeps its bytes, what is written means the same to every reader.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};

use devsync_injector::documents::{self, Format, Stream};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(text: &str) -> Stream {
    documents::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn values(text: &str) -> Vec<Option<Value>> {
    read(text).documents.iter().map(|document| document.value().cloned()).collect()
}

const STREAM: &str = "\
# A file's head.
%YAML 1.1
---
# Source: chart/templates/a.yaml
kind: A   # beside
anchors: &x {yes: \"on\"}
again: *x
merged:
  <<: *x
  b: 2
text: |
  --- no marker
   # no comment
---
---
kind: B
mode: 0644

# behind B
...
# between
---  {kind: C, \"a\": 'b'}
";

#[test]
fn what_is_not_changed_keeps_its_bytes() {
    for text in [STREAM, "", "\n", "# only\n", "---\n---\n...\n", "a: 1", "\u{feff}a: 1\r\n---\r\nb: 2\r\n"] {
        assert_eq!(read(text).write(), text);
    }
    let json = " {\"b\": 1e2,\n\t\"a\":[]}\n{\"c\":\n 2}\n\n";
    assert_eq!((read(json).format, read(json).documents.len()), (Format::Json, 2));
    assert_eq!(read(json).write(), json);
}

#[test]
fn the_values_are_those_that_kubectl_sees() {
    let found = values(STREAM);
    let x = json!({"yes": "on"});
    assert_eq!(
        found[0],
        Some(json!({"kind": "A", "anchors": x, "again": x, "merged": {"yes": "on", "b": 2},
            "text": "--- no marker\n # no comment\n"}))
    );
    assert_eq!(
        found[1..],
        [None, Some(json!({"kind": "B", "mode": 420})), Some(json!({"kind": "C", "a": "b"}))]
    );
    let scalars = "[y, yes, on, 1e3, 0o7, 0777, 1_000, 2001-01-01, 0x1F, 1:30, 1.10, ~, +5, '7', .5]";
    assert_eq!(
        values(scalars),
        [Some(json!([
            true,
            true,
            true,
            1000.0,
            7,
            511,
            1000,
            "2001-01-01",
            31,
            "1:30",
            1.1,
            null,
            5,
            "7",
            0.5
        ]))]
    );
}

#[test]
fn a_changed_document_keeps_what_stands_around_it() {
    let mut stream = read(STREAM);
    stream.documents[2].replace(json!({"kind": "B", "new": "0644"}));
    let same = json!({"kind": "C", "a": "b"});
    stream.documents[3].replace(same);
    assert!(!stream.documents[3].is_changed());
    let written = stream.write();
    let (before, after) =
        (&STREAM[..STREAM.find("kind: B").unwrap()], &STREAM[STREAM.find("\n# behind").unwrap()..]);
    assert_eq!(written, format!("{before}kind: B\nnew: \"0644\"\n{after}"));
    assert_eq!(stream.documents[2].loses(), Vec::<&str>::new());
    stream.documents[0].replace(json!({"kind": "A"}));
    assert_eq!(stream.documents[0].loses(), ["comments", "anchors"]);
    assert!(
        stream.write().starts_with(
            "# A file's head.\n%YAML 1.1\n---\n# Source: chart/templates/a.yaml\nkind: A\n---\n"
        )
    );
    // Content on the marker's line goes below it.
    stream.documents[3].replace(json!({"kind": "D"}));
    assert!(stream.write().ends_with("# between\n---\nkind: D\n"));
}

#[test]
fn json_keeps_its_indentation() {
    for (before, after) in [
        ("{\"a\":1}", "{\"a\":2}"),
        ("{\n    \"a\": 1\n}\n", "{\n    \"a\": 2\n}\n"),
        ("{\n\t\"a\": 1}\n{\"b\": 1}", "{\n\t\"a\": 2\n}\n{\"b\": 1}"),
    ] {
        let mut stream = read(before);
        stream.documents[0].replace(json!({"a": 2}));
        assert_eq!(stream.write(), after);
    }
}

#[test]
fn broken_text_is_refused_with_line_and_column() {
    for (text, line, column) in [
        ("a: 1\n---\nb: [1,\n  2\nc: }\n", 5, 2),
        ("a: *nowhere\n", 1, 4),
        ("a: \"no end\n", 1, 4),
        ("{\"a\": 1,\n \"b\": ]}\n", 2, 7),
        ("{\"a\": 1", 1, 7),
        ("a: 1\nb: 1\n c: 2\n", 3, 3),
    ] {
        let error = documents::read(text.as_bytes()).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
        assert!(!error.message.is_empty() && !error.message.contains(" line "), "{error}");
    }
    let error = documents::read(b"a: 1\nb: \xc3\xa4\xff\n").unwrap_err();
    assert_eq!((error.line, error.column, error.message.as_str()), (2, 5, "it is not UTF-8"));
    assert!(documents::read(b"\xff\xfea\0").unwrap_err().message.contains("UTF-16"));
}

#[test]
fn aliases_that_stand_for_billions_are_refused() {
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ('b'..='k').zip('a'..) {
        let many = vec![format!("*{of}"); 9].join(", ");
        laughs += &format!("{name}: &{name} [{many}]\n");
    }
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 90_000].join(", "));
    let deep = "[".repeat(100_000);
    for text in [laughs, long, deep] {
        assert!(documents::read(text.as_bytes()).is_err());
    }
    let many = "--- [&a [1,2,3,4,5,6,7,8,9,0], &b [*a,*a,*a,*a,*a,*a,*a,*a], [*b,*b,*b,*b,*b,*b,*b,*b]]\n"
        .repeat(4000);
    assert!(documents::read(many.as_bytes()).unwrap_err().message.contains("aliases"));
}

/// Strings that some reader takes for something else, or that break a careless writer.
const STRINGS: [&str; 77] = [
    "yes",
    "Yes",
    "no",
    "on",
    "Off",
    "y",
    "N",
    "true",
    "False",
    "null",
    "Null",
    "~",
    "",
    " ",
    "  a",
    "a ",
    "1e3",
    "1E3",
    "+1",
    "-1",
    "0o7",
    "0777",
    "08",
    "0x1F",
    "0b1",
    "1_000",
    "1.",
    ".5",
    "1.10",
    ".inf",
    "-.INF",
    ".nan",
    "2001-01-01",
    "2001-1-1",
    "2001-01-01T10:00:00Z",
    "1:30",
    "190:20:30",
    "12e03",
    "=",
    "<<",
    "-",
    "--- a",
    "---",
    "...",
    "- a",
    "? a",
    "a: b",
    "a:",
    ":a",
    "#a",
    "a #b",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "\"a\"",
    "'a'",
    "[a",
    "{a",
    "a]",
    ",",
    "a\nb",
    "a\nb\n",
    "a\n\n",
    "\na",
    " a\n b\n",
    "a\tb",
    "\ta\nb",
    "a\r\nb",
    "a\u{85}b",
    "\u{2028}\u{feff}",
    "\u{0}\u{1b}",
    "a\\nb",
    "ünï 😀",
    "trailing \nspace \n",
];

fn python(yaml: &str) -> Value {
    let program = "import json, sys, yaml\njson.dump(list(yaml.safe_load_all(sys.stdin.buffer)), sys.stdout)";
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{yaml}");
    let text = format!("{{\"v\": {}}}", String::from_utf8(output.stdout).unwrap());
    values(&text)[0].as_ref().unwrap()["v"].clone()
}

fn all_strings() -> Value {
    let long = format!("{} {}", "word ".repeat(60), "x".repeat(300));
    let fields: serde_json::Map<_, _> =
        STRINGS.iter().map(|s| ((*s).to_owned(), json!([s, {"k": s}]))).collect();
    json!({"values": STRINGS.to_vec(), "keys": fields, "long": long, "lines": format!("{long}\n{long}\n"), "empty": [{}, []]})
}

#[test]
fn strings_stay_strings_for_ourselves() {
    let text = documents::to_text(&all_strings(), Format::Yaml);
    assert_eq!(values(&text), [Some(all_strings())]);
    assert!(!text.starts_with('{'), "it is YAML, and not JSON because nothing else would do");
}

#[test]
#[ignore = "needs: python3-yaml"]
fn strings_stay_strings_for_python() {
    assert_eq!(python(&documents::to_text(&all_strings(), Format::Yaml)), json!([all_strings()]));
}

fn value() -> impl Strategy<Value = Value> {
    let string = prop_oneof![
        prop::sample::select(&STRINGS[..]).prop_map(str::to_owned),
        "[ -~\n\t#:'\"|>&*-]{0,40}",
        "(\\PC|[\n\r\t ]){0,12}",
        "[0-9+._:eExob-]{0,9}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e15..1e15_f64).prop_map(Value::from),
        string.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        let fields = prop::collection::vec((string.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(value in value()) {
        let text = documents::to_text(&value, Format::Yaml);
        prop_assert_eq!(values(&text), [Some(value.clone())], "{}", text);
        let text = documents::to_text(&value, Format::Json);
        let text = format!("{{\"v\": {text}}}");
        prop_assert_eq!(values(&text), [Some(json!({"v": value}))]);
    }

    #[test]
    fn what_follows_or_goes_before_does_not_matter(a in value(), b in value()) {
        let text = format!("{}---\n{}", documents::to_text(&a, Format::Yaml), documents::to_text(&b, Format::Yaml));
        prop_assume!(!text.trim_start().starts_with(['{', '[']));
        prop_assert_eq!(values(&text), [Some(a), Some(b)], "{}", text);
    }
}

#[test]
#[ignore = "needs: python3-yaml"]
fn what_is_written_means_the_same_to_python() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let all: Vec<Value> = (0..800).map(|_| value().new_tree(&mut runner).unwrap().current()).collect();
    let text: String = all.iter().map(|v| format!("---\n{}", documents::to_text(v, Format::Yaml))).collect();
    for (n, (found, wanted)) in python(&text).as_array().unwrap().iter().zip(&all).enumerate() {
        assert_eq!(found, wanted, "{n}: {}", documents::to_text(wanted, Format::Yaml));
    }
}
