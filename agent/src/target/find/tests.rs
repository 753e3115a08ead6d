//! Choosing the app in snapshots of pods that are plain data.

use super::*;

fn process(pid: u32, parent: u32, name: &str, namespace: u64) -> Process {
    Process {
        pid,
        parent,
        process_group: pid,
        start_time: u64::from(pid) * 10,
        name: name.as_bytes().to_vec(),
        argv: vec![format!("/bin/{name}").into_bytes()],
        container: Some(format!("{namespace:064x}")),
        mount_namespace: Some(namespace),
    }
}

/// Pause is PID 1; the app has a worker; somebody has a shell in its container; the agent has a child.
fn pod() -> Snapshot {
    let processes = vec![
        process(1, 0, "pause", 100),
        process(7, 0, "demo", 200),
        process(8, 7, "demo", 200),
        process(20, 0, "devsync-agent", 300),
        process(21, 20, "rsync", 300),
        process(40, 0, "sh", 200),
    ];
    Snapshot { own: 20, processes }
}

fn app(snapshot: &Snapshot, query: Query) -> Result<u32, FindError> {
    select(snapshot, &query).map(|t| t.app)
}

#[test]
fn the_only_app_is_found_beside_pause_agent_and_an_exec() {
    assert_eq!(app(&pod(), Query::Only), Ok(7));
}

#[test]
fn a_shell_older_by_its_pid_is_not_the_app() {
    let mut pod = pod();
    // PIDs wrap around; start times do not.
    pod.processes[5].pid = 3;
    assert_eq!(app(&pod, Query::Only), Ok(7));
}

#[test]
fn two_containers_are_ambiguous_and_listed() {
    let mut pod = pod();
    pod.processes.push(process(50, 0, "proxy\u{1b}[2J", 400));
    let error = app(&pod, Query::Only).expect_err("ambiguous").to_string();
    assert!(error.contains("pid/7 \"/bin/demo\"") && error.contains("pid/50"), "{error}");
    assert!(!error.contains('\u{1b}'), "{error}");
    assert_eq!(app(&pod, Query::MountNamespace(400)), Ok(50));
    assert_eq!(app(&pod, Query::Container(format!("{:064x}", 200))), Ok(7));
}

#[test]
fn without_containers_the_mount_namespace_decides() {
    let mut pod = pod();
    pod.processes.iter_mut().for_each(|p| p.container = None);
    assert_eq!(app(&pod, Query::Only), Ok(7));
    pod.processes.iter_mut().filter(|p| p.pid != 20).for_each(|p| p.mount_namespace = None);
    assert_eq!(app(&pod, Query::Only), Err(FindError::NothingHere { hidden: 5 }));
}

#[test]
fn an_unreadable_namespace_is_no_matter_with_container_ids() {
    let mut pod = pod();
    pod.processes.iter_mut().for_each(|p| p.mount_namespace = None);
    assert_eq!(app(&pod, Query::Only), Ok(7));
}

#[test]
fn the_agent_is_never_the_target() {
    assert_eq!(app(&pod(), Query::Pid(20)), Err(FindError::Itself(20)));
    assert_eq!(app(&pod(), Query::MountNamespace(300)), Err(FindError::NoNamespace(300)));
    assert_eq!(app(&pod(), Query::Pid(99)), Err(FindError::NoProcess(99)));
}

#[test]
fn a_pid_beside_the_agent_may_be_named() {
    let processes = vec![process(5, 1, "demo", 1), process(20, 1, "devsync-agent", 1)];
    assert_eq!(app(&Snapshot { own: 20, processes }, Query::Pid(5)), Ok(5));
}

#[test]
fn under_devsync_run_the_app_is_its_child() {
    let mut pod = pod();
    pod.processes[1].name = b"devsync-run".to_vec();
    // An adopted orphan is older but leads no group.
    let mut orphan = process(5, 7, "orphan", 200);
    orphan.process_group = 2;
    pod.processes.push(orphan);
    let want = Target { supervisor: Some(7), app: 8, container: Some(format!("{:064x}", 200)) };
    assert_eq!(select(&pod, &Query::Only), Ok(want.clone()));
    assert_eq!(select(&pod, &Query::Pid(7)), Ok(want.clone()));
    assert_eq!(select(&pod, &Query::Pid(8)), Ok(want));
}

#[test]
fn a_supervisor_without_a_child_holds_a_crash() {
    let mut pod = pod();
    pod.processes[1].name = b"devsync-run".to_vec();
    pod.processes.remove(2);
    let target = select(&pod, &Query::Only).expect("a target");
    assert_eq!((target.supervisor, target.app, target.root_pid()), (Some(7), 7, 7));
}

#[test]
fn queries_are_read_and_nonsense_is_not() {
    assert_eq!("pid/12".parse(), Ok(Query::Pid(12)));
    assert_eq!("container/0123456789ab".parse(), Ok(Query::Container("0123456789ab".to_owned())));
    assert_eq!("mnt/4026531840".parse(), Ok(Query::MountNamespace(4_026_531_840)));
    for bad in ["", "12", "pid/", "pid/-1", "pid/4294967296", "container/..", "container/0123", "deploy/x"] {
        assert!(bad.parse::<Query>().is_err(), "{bad}");
    }
}
