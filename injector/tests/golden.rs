//! Golden pairs: a manifest, and the same with devsync in it. `BLESS=1` writes the second of each anew; look at the
//! difference before you commit it.

#[path = "golden/cases.rs"]
#[allow(unreachable_pub)]
mod cases;
#[path = "golden/standards.rs"]
#[allow(unreachable_pub)]
mod standards;

use devsync_injector::{Config, Outcome, Place, inject};
use serde_json::{Value, json};

#[test]
fn every_pair_is_as_it_was_blessed() {
    let is_blessing = std::env::var_os("BLESS").is_some();
    let mut broken = Vec::new();
    for case in cases::all() {
        let text = case.text();
        if is_blessing {
            std::fs::write(case.golden(), &text).expect("written");
        } else if std::fs::read_to_string(case.golden()).ok().as_deref() != Some(&text) {
            broken.push(format!("=== {}\n{text}", case.name));
        }
    }
    assert!(broken.is_empty(), "{}\n(BLESS=1 writes them, if they are right)", broken.join("\n"));
    assert!(cases::all().len() >= 40);
}

#[test]
fn a_second_time_changes_nothing() {
    for case in cases::all() {
        assert_eq!(case.again().object, None, "{}", case.name);
        assert_eq!(case.again().did, Vec::<String>::new(), "{}", case.name);
    }
}

#[test]
fn eject_gives_back_what_came_in_to_the_order_of_its_fields() {
    for case in cases::all().into_iter().filter(|case| !case.name.starts_with("already-")) {
        assert_eq!(case.ejected().to_string(), case.input.to_string(), "{}", case.name);
    }
}

#[test]
fn nothing_that_is_added_breaks_the_namespaces_level() {
    for case in cases::all() {
        let output = case.output();
        for (before, after) in cases::templates(&case.input).into_iter().zip(cases::templates(&output)) {
            let before = standards::violations(case.place.level, before);
            let mut after = standards::violations(case.place.level, after);
            after.retain(|violation| !before.contains(violation));
            assert_eq!(after, Vec::<String>::new(), "{}", case.name);
        }
    }
}

#[test]
fn a_restricted_pod_stays_one_at_every_level() {
    // What is injected for the restricted level passes the others too.
    use devsync_injector::security::Level;
    for case in cases::all().iter().filter(|case| case.place.level == Level::Restricted) {
        for template in cases::templates(&case.output()) {
            if standards::violations(Level::Restricted, template).is_empty() {
                assert_eq!(
                    standards::violations(Level::Baseline, template),
                    Vec::<String>::new(),
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn words_fit_into_a_header() {
    for case in cases::all() {
        let Outcome { warnings, .. } = case.outcome();
        for warning in warnings {
            assert!(warning.len() <= 256, "{}: {} bytes: {warning}", case.name, warning.len());
            assert!(!warning.contains(char::is_control), "{warning:?}");
        }
    }
}

fn place() -> Place {
    Place { level: devsync_injector::security::Level::Privileged, native_sidecars: false }
}

#[test]
fn objects_of_other_kinds_pass_without_a_word() {
    for object in [
        json!(null),
        json!([]),
        json!({}),
        json!({"kind": "Pod"}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": []}}),
        json!({"apiVersion": "example.com/v1", "kind": "Deployment", "spec": {"template": {"spec": {"containers": [{}]}}}}),
        json!({"apiVersion": "v1", "kind": "List", "items": "none"}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {}}),
    ] {
        assert_eq!(inject(&object, &Config::default(), &place()), Outcome::default(), "{object}");
    }
}

#[test]
fn a_malformed_pod_is_named_and_passes() {
    for (spec, why) in [
        (json!({"containers": "x"}), "spec.containers is no list of objects"),
        (json!({"containers": []}), "it has no containers"),
        (json!({"containers": [1]}), "spec.containers is no list of objects"),
        (json!({"containers": [{"image": "a"}]}), "a container has no name"),
        (json!({"containers": [{"name": "a"}, {"name": "a"}]}), "two containers are called a"),
        (
            json!({"containers": [{"name": "a", "volumeMounts": {}}]}),
            "volumeMounts of container a is no list",
        ),
        (json!({"containers": [{"name": "a"}], "volumes": {"a": 1}}), "spec.volumes is no list of objects"),
    ] {
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}, "spec": spec});
        let outcome = inject(&pod, &Config::default(), &place());
        assert_eq!(outcome.object, None);
        assert_eq!(outcome.warnings, [format!("pod/x-*: not injected: {why}")]);
    }
}

#[test]
fn what_another_release_put_in_is_brought_up_to_date() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let old = Config { agent_image: "agent:old".to_owned(), ..Config::default() };
    let mut injected = inject(&pod, &old, &place()).object.expect("injected");
    let unchanged = inject(&injected, &Config::default(), &place());
    assert_eq!(unchanged, Outcome::default(), "the same release stays, whatever image it has");
    injected["metadata"]["annotations"]["devsync.dev/injected"] = json!("0.0.9");
    let renewed = inject(&injected, &Config::default(), &place());
    assert_eq!(renewed.object, inject(&pod, &Config::default(), &place()).object);
    assert_eq!(renewed.did[0], "pod/x: brought up to date: it was devsync 0.0.9");
    injected["metadata"]["annotations"]["devsync.dev/injected"] = json!("99.0.0");
    assert_eq!(inject(&injected, &Config::default(), &place()), Outcome::default(), "a later one stays");
}

#[test]
fn changed_annotations_and_a_stricter_namespace_are_followed() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
                     "spec": {"containers": [{"name": "a", "image": "i", "command": ["/a"]}]}});
    let injected = inject(&pod, &Config::default(), &place()).object.expect("injected");
    let mut asked = injected.clone();
    asked["metadata"]["annotations"]["devsync.dev/restart"] = json!("supervise");
    let renewed = inject(&asked, &Config::default(), &place());
    let command = &renewed.object.as_ref().expect("changed")["spec"]["containers"][0]["command"];
    assert_eq!(command, &json!(["/.devsync/devsync-run", "--", "/a"]));
    let level = devsync_injector::security::Level::Restricted;
    let strict = inject(&injected, &Config::default(), &Place { level, ..place() });
    assert!(strict.did[0].ends_with("brought up to date: the namespace enforces restricted"), "{strict:?}");
    let mut off = injected.clone();
    off["metadata"]["annotations"]["devsync.dev/inject"] = json!("disabled");
    let bare = inject(&off, &Config::default(), &place()).object.expect("changed");
    assert_eq!(bare["spec"], pod["spec"]);
}

#[test]
fn a_command_that_somebody_wrote_since_is_kept_by_eject() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "annotations": {"devsync.dev/restart": "supervise"}},
                     "spec": {"containers": [{"name": "a", "image": "i", "command": ["/a"], "args": ["-v"]}]}});
    let mut injected = inject(&pod, &Config::default(), &place()).object.expect("injected");
    injected["spec"]["containers"][0]["command"] = json!(["/theirs"]);
    let bare = devsync_injector::eject(&injected).object.expect("changed");
    assert_eq!(bare["spec"], json!({"containers": [{"name": "a", "image": "i", "command": ["/theirs"]}]}));
}

#[test]
fn a_lost_note_is_said_and_the_agent_is_taken_out() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let mut injected = inject(&pod, &Config::default(), &place()).object.expect("injected");
    injected["metadata"]["annotations"]["devsync.dev/original"] = json!("{");
    let outcome = devsync_injector::eject(&injected);
    let left = outcome.object.expect("changed");
    assert_eq!(left["spec"]["containers"], pod["spec"]["containers"]);
    assert!(outcome.warnings[0].starts_with("pod/x: the annotation devsync.dev/original cannot be read"));
    let attached =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": injected["spec"]});
    assert!(devsync_injector::eject(&attached).warnings[0].contains("devsync detach"));
    assert_eq!(inject(&attached, &Config::default(), &place()), Outcome::default(), "attach's agent is one");
}

#[test]
fn annotations_that_would_grow_too_large_are_left_alone() {
    let args = Value::from("x".repeat(300_000));
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
                     "metadata": {"name": "x", "annotations": {"devsync.dev/restart": "supervise"}},
                     "spec": {"containers": [{"name": "a", "image": "i", "command": ["/a"], "args": [args]}]}});
    let outcome = inject(&pod, &Config::default(), &place());
    assert!(outcome.object.is_none() && outcome.warnings[0].contains("256 KiB"), "{:?}", outcome.warnings);
}
