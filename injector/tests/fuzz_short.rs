//! A short fuzzing of inject and eject: the golden pairs with any of their parts replaced, removed, doubled or exchanged.
//!
//! `FUZZ_RUNS` sets the number of objects, `FUZZ_SEED` where to start.

#[path = "golden/cases.rs"]
#[allow(unreachable_pub, dead_code)]
mod cases;
#[path = "../../protocol/tests/fuzzing/random.rs"]
mod random;

use devsync_injector::security::Level;
use devsync_injector::{Config, Place, eject, inject};
use random::{Random, number};
use serde_json::{Value, json};

fn junk(random: &mut Random, corpus: &[Value]) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(random.next()),
        3 => json!(-1.5e300),
        4 => json!(""),
        5 => json!("devsync"),
        6 => json!("devsync-agent"),
        7 => json!([]),
        8 => json!({}),
        9 => json!("\u{0}\u{1f600}/../"),
        10 => json!("0.0.1"),
        _ => {
            let from = &corpus[random.below(corpus.len())];
            pick(random, from).clone()
        }
    }
}

/// Any value in a tree.
fn pick<'a>(random: &mut Random, value: &'a Value) -> &'a Value {
    let children: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => return value,
    };
    if children.is_empty() || random.below(4) == 0 {
        return value;
    }
    let child = children[random.below(children.len())];
    pick(random, child)
}

/// Changes one place somewhere in a tree.
fn mutate(random: &mut Random, value: &mut Value, corpus: &[Value]) {
    let deeper = random.below(6) != 0;
    match value {
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.below(items.len());
            match random.below(8) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.reverse(),
                _ => mutate(random, &mut items[at], corpus),
            }
        }
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            match random.below(8) {
                0 => drop(fields.shift_remove(&key)),
                1 => drop(fields.insert("devsync.dev/injected".to_owned(), junk(random, corpus))),
                2 => drop(
                    fields
                        .insert("devsync.dev/original".to_owned(), json!("{\"spec\":{\"containers\":null}}")),
                ),
                _ => mutate(random, &mut fields[&key], corpus),
            }
        }
        other => *other = junk(random, corpus),
    }
}

fn check(object: &Value, config: &Config, place: &Place) {
    let outcome = inject(object, config, place);
    if let Some(injected) = &outcome.object {
        assert_eq!(inject(injected, config, place).object, None, "a second time changes something: {object}");
        // What nothing of devsync was in comes back; a mark may stand in what is no pod any more.
        let text = object.to_string();
        if !["injected", "original"].iter().any(|mark| text.contains(&format!("devsync.dev/{mark}"))) {
            let back = eject(injected).object.expect("ejected");
            assert_eq!(back.to_string(), object.to_string(), "eject gives something else back");
        }
    }
    if let Some(ejected) = eject(object).object {
        assert_eq!(eject(&ejected).object, None, "eject leaves something to eject: {object}");
    }
}

#[test]
fn inject_and_eject() {
    let corpus: Vec<Value> = cases::all().into_iter().flat_map(|case| [case.output(), case.input]).collect();
    let (runs, seed) = (number("FUZZ_RUNS", 3000), number("FUZZ_SEED", 1));
    let levels = [Level::Privileged, Level::Baseline, Level::Restricted];
    let configs =
        [Config::default(), Config::from_yaml("{restart: supervise, imagePullSecret: x}").expect("fine")];
    for i in 0..runs {
        let mut random = Random::of(seed, i);
        let mut object = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(5) {
            mutate(&mut random, &mut object, &corpus);
        }
        let place = Place { level: levels[random.below(3)], native_sidecars: random.below(2) == 0 };
        let config = &configs[random.below(2)];
        let failed = std::panic::catch_unwind(|| check(&object, config, &place)).is_err();
        assert!(!failed, "repeat with FUZZ_RUNS=1 FUZZ_SEED={}", seed.wrapping_add(i));
    }
}
