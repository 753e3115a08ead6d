//! The Pod Security Standards as Kubernetes publishes them (v1.36), as a table of controls: what each level forbids in a
//! pod's template. The checks of clusters that have no such admission plugin yet.

use devsync_injector::security::Level;
use serde_json::Value;

/// A control: its name as published, the level that begins with it, and what it finds wrong.
struct Control {
    name: &'static str,
    level: Level,
    /// In the pod as a whole.
    pod: fn(&Value) -> Vec<String>,
    /// In each container, of all three kinds; the pod's spec is beside it.
    container: fn(&Value, &Value) -> Vec<String>,
}

const NOTHING_IN_POD: fn(&Value) -> Vec<String> = |_| Vec::new();
const NOTHING_IN_CONTAINER: fn(&Value, &Value) -> Vec<String> = |_, _| Vec::new();

const CONTROLS: [Control; 18] = [
    Control {
        name: "HostProcess",
        level: Level::Baseline,
        pod: |t| host_process(&t["spec"]),
        container: |c, _| host_process(c),
    },
    Control {
        name: "Host Namespaces",
        level: Level::Baseline,
        pod: host_namespaces,
        container: NOTHING_IN_CONTAINER,
    },
    Control {
        name: "Privileged Containers",
        level: Level::Baseline,
        pod: NOTHING_IN_POD,
        container: |c, _| not(&c["securityContext"]["privileged"], "privileged"),
    },
    Control {
        name: "Capabilities",
        level: Level::Baseline,
        pod: NOTHING_IN_POD,
        container: |c, _| added(c, &BASELINE_CAPABILITIES),
    },
    Control {
        name: "HostPath Volumes",
        level: Level::Baseline,
        pod: host_paths,
        container: NOTHING_IN_CONTAINER,
    },
    Control {
        name: "Host Ports",
        level: Level::Baseline,
        pod: NOTHING_IN_POD,
        container: |c, _| host_ports(c),
    },
    Control {
        name: "Host Probes / Lifecycle Hooks",
        level: Level::Baseline,
        pod: NOTHING_IN_POD,
        container: |c, _| probe_hosts(c),
    },
    Control { name: "AppArmor", level: Level::Baseline, pod: apparmor_of_pod, container: |c, _| apparmor(c) },
    Control {
        name: "SELinux",
        level: Level::Baseline,
        pod: |t| selinux(&t["spec"]),
        container: |c, _| selinux(c),
    },
    Control { name: "/proc Mount Type", level: Level::Baseline, pod: NOTHING_IN_POD, container: proc_mount },
    Control {
        name: "Seccomp",
        level: Level::Baseline,
        pod: |t| unconfined(&t["spec"]),
        container: |c, _| unconfined(c),
    },
    Control { name: "Sysctls", level: Level::Baseline, pod: sysctls, container: NOTHING_IN_CONTAINER },
    Control {
        name: "Volume Types",
        level: Level::Restricted,
        pod: volume_types,
        container: NOTHING_IN_CONTAINER,
    },
    Control {
        name: "Privilege Escalation",
        level: Level::Restricted,
        pod: NOTHING_IN_POD,
        container: |c, _| escalation(c),
    },
    Control {
        name: "Running as Non-root",
        level: Level::Restricted,
        pod: NOTHING_IN_POD,
        container: non_root,
    },
    Control {
        name: "Running as Non-root user",
        level: Level::Restricted,
        pod: |t| user_zero(&t["spec"], &t["spec"]),
        container: user_zero,
    },
    Control {
        name: "Seccomp (restricted)",
        level: Level::Restricted,
        pod: NOTHING_IN_POD,
        container: seccomp_set,
    },
    Control {
        name: "Capabilities (restricted)",
        level: Level::Restricted,
        pod: NOTHING_IN_POD,
        container: |c, _| drops_all(c),
    },
];

const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What a pod's template has against a level, one line each.
pub fn violations(level: Level, template: &Value) -> Vec<String> {
    let spec = &template["spec"];
    let mut found = Vec::new();
    for control in CONTROLS.iter().filter(|control| control.level <= level) {
        found.extend((control.pod)(template).into_iter().map(|what| format!("{}: {what}", control.name)));
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            for container in spec[list].as_array().into_iter().flatten() {
                let wrong = (control.container)(container, spec);
                let name = &container["name"];
                found.extend(
                    wrong.into_iter().map(|what| format!("{}: container {name}: {what}", control.name)),
                );
            }
        }
    }
    found
}

fn not(value: &Value, name: &str) -> Vec<String> {
    if *value == true { vec![name.to_owned()] } else { Vec::new() }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A string that is stated and none of those.
fn outside(value: &Value, allowed: &[&str]) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) if allowed.contains(&text.as_str()) => Vec::new(),
        other => vec![other.to_string()],
    }
}

fn host_process(of: &Value) -> Vec<String> {
    not(&of["securityContext"]["windowsOptions"]["hostProcess"], "hostProcess")
}

fn host_namespaces(template: &Value) -> Vec<String> {
    ["hostNetwork", "hostPID", "hostIPC"].iter().flat_map(|name| not(&template["spec"][name], name)).collect()
}

fn added(container: &Value, allowed: &[&str]) -> Vec<String> {
    items(&container["securityContext"]["capabilities"]["add"])
        .flat_map(|name| outside(name, allowed))
        .collect()
}

fn host_paths(template: &Value) -> Vec<String> {
    let volumes = items(&template["spec"]["volumes"]);
    volumes.filter(|volume| !volume["hostPath"].is_null()).map(|volume| volume["name"].to_string()).collect()
}

fn host_ports(container: &Value) -> Vec<String> {
    let ports = items(&container["ports"]).map(|port| &port["hostPort"]);
    ports.filter(|port| !port.is_null() && **port != 0).map(Value::to_string).collect()
}

fn probe_hosts(container: &Value) -> Vec<String> {
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].iter().map(|name| &container[name]);
    let hooks = ["postStart", "preStop"].iter().map(|name| &container["lifecycle"][name]);
    let all = probes.chain(hooks);
    all.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| &handler[kind]["host"]))
        .flat_map(|host| outside(host, &[""]))
        .collect()
}

fn apparmor(of: &Value) -> Vec<String> {
    outside(&of["securityContext"]["appArmorProfile"]["type"], &["RuntimeDefault", "Localhost"])
}

fn apparmor_of_pod(template: &Value) -> Vec<String> {
    let annotations = template["metadata"]["annotations"].as_object().into_iter().flatten();
    let ours =
        annotations.filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"));
    let values = ours.filter_map(|(_, value)| value.as_str());
    let wrong =
        values.filter(|value| !(["", "runtime/default"].contains(value) || value.starts_with("localhost/")));
    wrong.map(str::to_owned).chain(apparmor(&template["spec"])).collect()
}

fn selinux(of: &Value) -> Vec<String> {
    let options = &of["securityContext"]["seLinuxOptions"];
    let kind = outside(&options["type"], &SELINUX_TYPES);
    kind.into_iter().chain(outside(&options["user"], &[""])).chain(outside(&options["role"], &[""])).collect()
}

fn proc_mount(container: &Value, spec: &Value) -> Vec<String> {
    // Relaxed in a user namespace.
    if spec["hostUsers"] == false {
        Vec::new()
    } else {
        outside(&container["securityContext"]["procMount"], &["Default"])
    }
}

fn unconfined(of: &Value) -> Vec<String> {
    outside(&of["securityContext"]["seccompProfile"]["type"], &["RuntimeDefault", "Localhost"])
}

fn sysctls(template: &Value) -> Vec<String> {
    items(&template["spec"]["securityContext"]["sysctls"])
        .flat_map(|sysctl| outside(&sysctl["name"], &SYSCTLS))
        .collect()
}

fn volume_types(template: &Value) -> Vec<String> {
    let of = |volume: &Value| {
        volume.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>()
    };
    let kinds = items(&template["spec"]["volumes"]).flat_map(of);
    kinds.filter(|kind| kind != "name" && !VOLUMES.contains(&kind.as_str())).collect()
}

fn escalation(container: &Value) -> Vec<String> {
    let value = &container["securityContext"]["allowPrivilegeEscalation"];
    if *value == false { Vec::new() } else { vec![value.to_string()] }
}

fn non_root(container: &Value, spec: &Value) -> Vec<String> {
    let stated = &container["securityContext"]["runAsNonRoot"];
    let value = if stated.is_null() { &spec["securityContext"]["runAsNonRoot"] } else { stated };
    if *value == true || spec["hostUsers"] == false { Vec::new() } else { vec![value.to_string()] }
}

fn user_zero(of: &Value, spec: &Value) -> Vec<String> {
    let is_zero = of["securityContext"]["runAsUser"] == 0 && spec["hostUsers"] != false;
    if is_zero { vec!["runAsUser 0".to_owned()] } else { Vec::new() }
}

fn seccomp_set(container: &Value, spec: &Value) -> Vec<String> {
    let of = |of: &Value| of["securityContext"]["seccompProfile"]["type"].clone();
    let value = Some(of(container)).filter(|value| !value.is_null()).unwrap_or_else(|| of(spec));
    if ["RuntimeDefault", "Localhost"].iter().any(|allowed| value == *allowed) {
        Vec::new()
    } else {
        vec![value.to_string()]
    }
}

fn drops_all(container: &Value) -> Vec<String> {
    let dropped = &container["securityContext"]["capabilities"]["drop"];
    let mut wrong = added(container, &["NET_BIND_SERVICE"]);
    if !items(dropped).any(|name| name == "ALL") {
        wrong.push("does not drop ALL".to_owned());
    }
    wrong
}

#[test]
fn the_table_refuses_what_the_standards_refuse() {
    use serde_json::json;
    let pod = |context: Value, more: Value| {
        let mut container = json!({"name": "a", "securityContext": context});
        for (key, value) in more.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        json!({"spec": {"containers": [container]}})
    };
    let fine = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
                      "seccompProfile": {"type": "RuntimeDefault"}});
    assert_eq!(violations(Level::Restricted, &pod(fine.clone(), json!({}))), Vec::<String>::new());
    assert_eq!(violations(Level::Restricted, &pod(json!({}), json!({}))).len(), 4);
    let baseline = |context, more| violations(Level::Baseline, &pod(context, more)).len();
    assert_eq!(baseline(json!({}), json!({})), 0);
    assert_eq!(
        baseline(json!({"privileged": true, "capabilities": {"add": ["SYS_PTRACE", "CHOWN"]}}), json!({})),
        2
    );
    assert_eq!(
        baseline(json!({"seccompProfile": {"type": "Unconfined"}, "procMount": "Unmasked"}), json!({})),
        2
    );
    assert_eq!(baseline(json!({}), json!({"ports": [{"hostPort": 80}, {"hostPort": 0}]})), 1);
    assert_eq!(baseline(json!({}), json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}})), 1);
    assert_eq!(violations(Level::Privileged, &pod(json!({"privileged": true}), json!({}))).len(), 0);
    let volumes = json!({"spec": {"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "nfs": {}}], "hostPID": true}});
    assert_eq!(violations(Level::Baseline, &volumes).len(), 2);
    assert_eq!(violations(Level::Restricted, &volumes).len(), 4);
}
