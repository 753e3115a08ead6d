//! What holds for every pod: a second injection changes nothing, eject gives back what came in, the namespace's level is
//! kept, and the API's rules of names and mounts too. Pods are generated with fields that nobody knows.

#[path = "golden/standards.rs"]
#[allow(unreachable_pub)]
mod standards;

use std::collections::BTreeSet;

use devsync_injector::security::Level;
use devsync_injector::{Config, Place, eject, inject};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A field: its name and its value. An object's fields are put into any order.
type Field = (String, Value);

fn junk() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z/:é]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-z]{1,4}", inner), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
    .boxed()
}

/// An object of the fields that are there, and of unknown ones, in any order.
fn object(fields: Vec<BoxedStrategy<Option<Field>>>) -> BoxedStrategy<Value> {
    let unknown = vec(("x[a-z]{1,5}", junk()), 0..3);
    (fields, unknown)
        .prop_flat_map(|(fields, unknown)| {
            let all: Vec<Field> = fields.into_iter().flatten().chain(unknown).collect();
            Just(all).prop_shuffle()
        })
        .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>()))
        .boxed()
}

fn always(name: &str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Field>> {
    let name = name.to_owned();
    value.prop_map(move |value| Some((name.clone(), value))).boxed()
}

fn perhaps(name: &str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Field>> {
    let name = name.to_owned();
    option::of(value).prop_map(move |value| Some((name.clone(), value?))).boxed()
}

fn one_of(values: &[Value]) -> BoxedStrategy<Value> {
    prop::sample::select(values.to_vec()).boxed()
}

fn words() -> BoxedStrategy<Value> {
    let list = vec("[a-z/$()-]{1,6}", 0..3).prop_map(Value::from);
    prop_oneof![8 => list, 1 => Just(Value::Null), 1 => junk()].boxed()
}

fn probe() -> BoxedStrategy<Value> {
    object(vec![
        perhaps("httpGet", one_of(&[json!({"port": 80})])),
        perhaps("periodSeconds", (0..700_i64).prop_map(Value::from)),
        perhaps("failureThreshold", (0..100_i64).prop_map(Value::from)),
        perhaps("timeoutSeconds", junk()),
    ])
}

fn context() -> BoxedStrategy<Value> {
    let id = || prop_oneof![Just(0_i64), Just(1000), Just(2000)].prop_map(Value::from);
    object(vec![
        perhaps("runAsUser", id()),
        perhaps("runAsGroup", id()),
        perhaps("runAsNonRoot", any::<bool>().prop_map(Value::from)),
        perhaps("allowPrivilegeEscalation", any::<bool>().prop_map(Value::from)),
        perhaps(
            "seccompProfile",
            one_of(&[json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"})]),
        ),
        perhaps(
            "capabilities",
            one_of(&[json!({"drop": ["ALL"]}), json!({"add": ["NET_ADMIN"]}), json!({"drop": ["CHOWN"]})]),
        ),
        perhaps("privileged", any::<bool>().prop_map(Value::from)),
        perhaps(
            "seLinuxOptions",
            one_of(&[json!({"level": "s0"}), json!({"type": "spc_t"}), json!({"user": "u"})]),
        ),
    ])
}

fn mounts() -> BoxedStrategy<Value> {
    let mount =
        prop::sample::subsequence(vec!["/data", "/app", "/app/conf", "/.devsync", "/run/devsync", "/"], 0..3);
    let list = mount.prop_map(|paths| {
        paths
            .into_iter()
            .map(|path| json!({"name": "data", "mountPath": path, "subPath": "x"}))
            .collect::<Value>()
    });
    prop_oneof![4 => list, 1 => Just(Value::Null)].boxed()
}

fn container(name: &'static str) -> BoxedStrategy<Value> {
    object(vec![
        always("name", Just(json!(name))),
        perhaps("image", one_of(&[json!("a:1"), json!("registry/b"), json!("linuxserver/x")])),
        perhaps("imagePullPolicy", Just(json!("Always"))),
        perhaps("command", words()),
        perhaps("args", words()),
        perhaps("livenessProbe", probe()),
        perhaps("startupProbe", probe()),
        perhaps("readinessProbe", prop_oneof![probe(), junk()]),
        perhaps("securityContext", context()),
        perhaps("volumeMounts", mounts()),
        perhaps("restartPolicy", Just(json!("Always"))),
    ])
}

fn containers(names: Vec<&'static str>, least: usize) -> BoxedStrategy<Value> {
    let count = names.len();
    prop::sample::subsequence(names, least..=count)
        .prop_flat_map(|names| names.into_iter().map(container).collect::<Vec<_>>())
        .prop_map(Value::from)
        .boxed()
}

fn spec() -> BoxedStrategy<Value> {
    let flag = || one_of(&[json!(true), json!(false), json!(null)]);
    object(vec![
        always("containers", containers(vec!["app", "web", "istio-proxy"], 1)),
        perhaps(
            "initContainers",
            prop_oneof![4 => containers(vec!["init", "migrate"], 0), 1 => Just(Value::Null)],
        ),
        perhaps(
            "volumes",
            one_of(&[
                json!([]),
                json!(null),
                json!([{"name": "data", "emptyDir": {}}]),
                json!([{"name": "devsync"}]),
            ]),
        ),
        perhaps(
            "imagePullSecrets",
            one_of(&[json!([]), json!([{"name": "mirror"}]), json!([{"name": "other"}])]),
        ),
        perhaps("securityContext", context()),
        perhaps("shareProcessNamespace", flag()),
        perhaps("resources", one_of(&[json!({}), json!({"limits": {"cpu": "1"}})])),
        perhaps("restartPolicy", prop::sample::select(vec!["Always", "Never"]).prop_map(Value::from)),
        perhaps("hostUsers", flag()),
    ])
}

fn annotations() -> BoxedStrategy<Value> {
    let said = |name: &str, values: &[&str]| {
        let values: Vec<Value> = values.iter().map(|value| json!(value)).collect();
        perhaps(&format!("devsync.dev/{name}"), one_of(&values))
    };
    let fields = vec![
        said("container", &["app", "web,app", "nobody", ""]),
        said("restart", &["supervise", "auto", "signal:HUP", "?"]),
        said("wait", &["true", "false", "maybe"]),
        said("workspace", &["/app", "/app/conf/x", "/", "work"]),
        said("command", &["[\"/server\"]", "[]", "x"]),
        said("probes", &["keep", "relax", "strip"]),
        said("dev-image", &["dev:1", "No Image"]),
        said("agent-image", &["agent:2"]),
        said("keys", &["ssh-ed25519 AAAA", "x"]),
        said("keys-from", &["team"]),
        said("resources", &["{\"limits\":{\"memory\":\"1Gi\"}}", "{"]),
        said("ptrace", &["true"]),
        said("run-as", &["app", "root", "auto"]),
        said("unknown", &["x"]),
    ];
    prop_oneof![6 => object(fields), 1 => Just(Value::Null), 1 => Just(json!({}))].boxed()
}

fn pod() -> BoxedStrategy<Value> {
    let metadata = object(vec![
        perhaps("annotations", annotations()),
        perhaps("labels", one_of(&[json!({"app": "x"}), json!(null)])),
    ]);
    let metadata = prop_oneof![6 => metadata, 1 => Just(Value::Null)];
    object(vec![
        always("apiVersion", Just(json!("v1"))),
        always("kind", Just(json!("Pod"))),
        perhaps("metadata", metadata),
        always("spec", spec()),
        perhaps("status", junk()),
    ])
}

fn place() -> BoxedStrategy<Place> {
    let level = prop::sample::select(vec![Level::Privileged, Level::Baseline, Level::Restricted]);
    (level, any::<bool>()).prop_map(|(level, native_sidecars)| Place { level, native_sidecars }).boxed()
}

fn config() -> BoxedStrategy<Config> {
    let texts =
        ["", "imagePullSecret: mirror\nkeysFrom: team", "restart: supervise\nrunAs: app", "probes: strip"];
    prop::sample::select(texts.to_vec()).prop_map(|text| Config::from_yaml(text).expect("fine")).boxed()
}

fn names<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().filter_map(|item| item[field].as_str()).collect()
}

fn unique(names: &[&str]) -> bool {
    names.iter().collect::<BTreeSet<_>>().len() == names.len()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn inject_twice_is_inject_once(pod in pod(), place in place(), config in config()) {
        let first = inject(&pod, &config, &place);
        if let Some(injected) = &first.object {
            prop_assert_ne!(injected, &pod);
            let again = inject(injected, &config, &place);
            prop_assert_eq!(again.object, None);
            prop_assert!(again.did.is_empty());
        }
    }

    #[test]
    fn eject_is_the_way_back(pod in pod(), place in place(), config in config()) {
        prop_assert_eq!(eject(&pod).object, None);
        if let Some(injected) = inject(&pod, &config, &place).object {
            let ejected = eject(&injected);
            prop_assert_eq!(ejected.object.map(|object| object.to_string()), Some(pod.to_string()));
            prop_assert!(ejected.warnings.is_empty());
        }
    }

    #[test]
    fn the_level_is_kept_and_the_apis_rules(pod in pod(), place in place(), config in config()) {
        let Some(injected) = inject(&pod, &config, &place).object else { return Ok(()) };
        let before = standards::violations(place.level, &pod);
        let mut after = standards::violations(place.level, &injected);
        after.retain(|violation| !before.contains(violation));
        prop_assert_eq!(after, Vec::<String>::new());
        let spec = &injected["spec"];
        let mut all = names(&spec["containers"], "name");
        all.extend(names(&spec["initContainers"], "name"));
        prop_assert!(unique(&all), "{:?}", all);
        prop_assert!(unique(&names(&spec["volumes"], "name")));
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                let paths = names(&container["volumeMounts"], "mountPath");
                prop_assert!(unique(&paths), "{:?}", paths);
            }
        }
        let agent = devsync_injector::agent::agent_in(spec).expect("an agent");
        let is_root = agent["securityContext"]["runAsUser"] == 0;
        prop_assert!(!(is_root && agent["securityContext"]["runAsNonRoot"] == true), "kubelet would refuse it");
    }

    #[test]
    fn nothing_at_all_makes_it_fail(object in junk(), spec in junk(), place in place()) {
        for object in [object, json!({"apiVersion": "v1", "kind": "Pod", "spec": spec})] {
            inject(&object, &Config::default(), &place);
            eject(&object);
        }
    }
}
