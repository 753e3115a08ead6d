//! The processes beside an agent, by container, as a table. The agent tells them; names come from the pod.

use std::collections::BTreeMap;

use devsync_protocol::process::Process;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::cluster::short_id;
use crate::report::{bytes, plain_line};

/// Longest command of a row, in characters.
const COMMAND: usize = 120;

/// A process and the container that it is in, for machines.
#[derive(Debug, Serialize)]
pub struct Row<'p> {
    /// By its name in the pod, else by its id or mount namespace.
    pub place: String,
    /// Of one processor, over the process's whole life, as ps(1) has it.
    pub cpu_percent: f64,
    #[serde(flatten)]
    pub process: &'p Process,
}

/// Rows in the order of the containers' first processes.
pub fn rows<'p>(processes: &'p [Process], pod: Option<&Pod>) -> Vec<Row<'p>> {
    let names = pod.map(names).unwrap_or_default();
    let mut order: Vec<String> = Vec::new();
    let mut rows: Vec<Row> = processes
        .iter()
        .map(|process| {
            let place = place(process, &names);
            if !order.contains(&place) {
                order.push(place.clone());
            }
            let cpu = process.cpu_ms as f64 * 100.0 / process.age_ms.max(1) as f64;
            Row { place, cpu_percent: (cpu * 10.0).round() / 10.0, process }
        })
        .collect();
    rows.sort_by_key(|row| order.iter().position(|place| *place == row.place));
    rows
}

/// Of all containers, by the whole id.
fn names(pod: &Pod) -> BTreeMap<String, String> {
    let Some(status) = &pod.status else { return BTreeMap::new() };
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let all = lists.into_iter().flatten().flatten();
    all.filter_map(|c| Some((short_id(c.container_id.as_deref()?).to_owned(), c.name.clone()))).collect()
}

fn place(process: &Process, names: &BTreeMap<String, String>) -> String {
    let container = process.container.as_deref();
    let named = container.and_then(|id| names.get(id));
    let short = || container.map(|id| format!("container {}", id.get(..12).unwrap_or(id)));
    let namespace = || process.mount_namespace.map(|inode| format!("mount namespace {inode}"));
    // The agent does not see its own container's id.
    let own = || process.agent.then(|| "the agent".to_owned());
    named.cloned().or_else(own).or_else(short).or_else(namespace).unwrap_or_else(|| "unknown".to_owned())
}

/// For a terminal: a heading for each container.
pub fn table(rows: &[Row], left: usize) -> String {
    let mut lines = Vec::new();
    let mut place = None;
    for row in rows {
        if place != Some(&row.place) {
            let agent = if row.process.agent { " (devsync's agent)" } else { "" };
            lines.push(format!("{}{agent}", plain_line(&row.place)));
            lines.push(format!(
                "  {:>7} {:>6} {:>6} {:>9}  {:<14} COMMAND",
                "PID", "UID", "CPU%", "RSS", "PORTS"
            ));
            place = Some(&row.place);
        }
        lines.push(line(row));
    }
    if left > 0 {
        lines.push(format!("and {left} more, which are not shown"));
    }
    lines.join("\n")
}

fn line(row: &Row) -> String {
    let Process { pid, uid, rss, ports, exe, argv, .. } = row.process;
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let command = if argv.is_empty() { format!("[{exe}]") } else { argv.join(" ") };
    // What a process calls itself may be anything: its file is told too, where that is another.
    let is_named = argv.first().is_some_and(|first| first.rsplit('/').next() == exe.rsplit('/').next());
    let command = if is_named || argv.is_empty() { command } else { format!("{command}  [{exe}]") };
    let mut shown: String = plain_line(&command).chars().take(COMMAND).collect();
    if command.chars().count() > COMMAND {
        shown.push('…');
    }
    let (cpu, rss, ports) = (row.cpu_percent, bytes(*rss), ports.join(","));
    format!("  {pid:>7} {uid:>6} {cpu:>6.1} {rss:>9}  {ports:<14} {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn process(pid: u32, container: Option<&str>, argv: &[&str]) -> Process {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let container = container.map(str::to_owned);
        Process {
            pid,
            container,
            argv,
            exe: "/usr/bin/x".to_owned(),
            cpu_ms: 50,
            age_ms: 1000,
            ..Process::default()
        }
    }

    #[test]
    fn processes_stand_under_their_container_s_name() {
        let id = "a".repeat(64);
        let status = json!({"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                            "containerID": format!("containerd://{id}")});
        let pod = serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [status]}}));
        let agent = Process { agent: true, mount_namespace: Some(7), ..process(9, None, &["devsync-agent"]) };
        let all = [process(1, Some(&id), &["x"]), agent, process(12, Some(&id), &["y\u{1b}[2J"])];
        let rows = rows(&all, Some(&pod.expect("a pod")));
        assert_eq!(rows.iter().map(|row| row.process.pid).collect::<Vec<_>>(), [1, 12, 9]);
        let table = table(&rows, 3);
        assert!(table.starts_with("app\n      PID"), "{table}");
        assert!(
            table.contains("\nthe agent (devsync's agent)\n")
                && table.ends_with("and 3 more, which are not shown"),
            "{table}"
        );
        assert!(table.contains("5.0") && table.contains("y\\u{1b}[2J  [/usr/bin/x]"), "{table}");
        assert!(!table.contains('\u{1b}'));
    }
}
