//! Events as a person reads them.

use devsync_protocol::restart::RestartMode;

use super::{Event, Hops, Restarted, Synced, plain_line};

pub(super) enum Said {
    /// For standard output; not said to who wants quiet.
    Plain(String),
    /// For standard error, always.
    Warning(String),
}

/// `1 file`, `2 files`.
pub fn count(n: usize, noun: &str) -> String {
    let plural = match noun {
        "entry" => "entries".to_owned(),
        "directory" => "directories".to_owned(),
        "try" => "tries".to_owned(),
        noun => format!("{noun}s"),
    };
    if n == 1 { format!("1 {noun}") } else { format!("{n} {plural}") }
}

/// A size with one decimal, in powers of 1000: `1.3 KB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    if n < 1000 {
        return format!("{n} B");
    }
    for unit in ["KB", "MB", "GB"] {
        value /= 1000.0;
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{:.1} TB", value / 1000.0)
}

/// Milliseconds in few digits: `0.8 ms`, `84 ms`, `2.3 s`.
pub fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 9999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

pub(super) fn synced(synced: &Synced) -> String {
    let time = millis(synced.ms.total);
    if synced.files == 0 && synced.deleted == 0 {
        return format!("nothing to sync ({time})");
    }
    let mut parts = Vec::new();
    if synced.files > 0 {
        parts.push(format!("synced {} ({})", count(synced.files, "file"), bytes(synced.bytes)));
    }
    if synced.deleted > 0 {
        parts.push(format!("deleted {}", synced.deleted));
    }
    let mut text = format!("{} in {time}", parts.join(", "));
    if !synced.in_place.is_empty() {
        text.push_str(&format!(" ({} in place)", synced.in_place.len()));
    }
    text
}

pub(super) fn restarted(restarted: &Restarted) -> String {
    let Restarted { app, mode, old_pid, new_pid, count, .. } = restarted;
    let how = match mode {
        RestartMode::Reexec => "restarted in place",
        RestartMode::Signal(_) => {
            return format!("sent {app} {}", mode.to_string().replace("signal:", "SIG"));
        }
        RestartMode::None => return "not restarted".to_owned(),
        _ => "restarted",
    };
    let how = how.replacen("restarted", &format!("restarted {app}"), 1);
    let again = if *count > 1 { format!(", restart {count}") } else { String::new() };
    match old_pid == new_pid {
        true => format!("{how} (same PID{again})"),
        false => format!("{how} (PID {old_pid} → {new_pid}{again})"),
    }
}

/// `None` where the app listens on nothing, so that there is nothing to wait for.
pub(super) fn ready(ports: &[u16], missing: &[u16], ms: &Hops) -> Option<String> {
    let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    if !missing.is_empty() {
        return Some(format!("NOT READY: nothing listens on port {}", list(missing)));
    }
    (!ports.is_empty()).then(|| format!("ready in {}", millis(ms.total)))
}

fn with_hint(text: String, hint: Option<&str>) -> String {
    match hint {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text,
    }
}

/// What an event that has a line of its own says; `None` for one that only machines want.
pub(super) fn said(event: &Event) -> Option<Said> {
    let plain = |text: String| Some(Said::Plain(text));
    let warning = |text: String| Some(Said::Warning(text));
    match event {
        Event::Attached { route, app, sync, restart, build, because, .. } => {
            let places: Vec<_> = sync.iter().map(|p| format!("{} → {}", p.from, p.to)).collect();
            let build = build.as_ref().map(|b| format!(" · build: {b}")).unwrap_or_default();
            let facts = app.lines.join("\n");
            plain(format!(
                "attached to {} ({route}): {facts}\n{} · restart: {restart}{build} ({because})",
                app.name,
                places.join(", "),
            ))
        }
        Event::RestartFailed { what, cause, hint, app, .. } => {
            let text = format!("not restarted: {what}\ncaused by: {cause}\n{app}");
            warning(with_hint(text, Some(hint.as_str()).filter(|h| !h.is_empty())))
        }
        Event::Conflict { path } => warning(format!(
            "conflict: {path} changed in the pod since devsync wrote it; it was kept\n\
             hint: `devsync pull {path}` fetches the pod's version, --overwrite replaces it"
        )),
        Event::Problem { path, cause, hint } => {
            warning(with_hint(format!("not synced: {path}: {}", plain_line(cause)), hint.as_deref()))
        }
        Event::Skipped { path, cause } => warning(format!("skipped: {path}: {}", plain_line(cause))),
        Event::Note { text, hint } => warning(with_hint(format!("note: {text}"), hint.as_deref())),
        Event::Step { text } => plain(text.clone()),
        Event::Building { command } => plain(format!("building: {command}")),
        Event::BuildFailed { cause, .. } => {
            warning(format!("{cause}; nothing was sent, the next save builds again"))
        }
        Event::CommandStarted { command } => plain(format!("running in the container: {command}")),
        Event::CommandOutput { command, line } => {
            plain(format!("{} | {}", command.split(' ').next().unwrap_or_default(), plain_line(line)))
        }
        Event::CommandEnded { command, ms } => plain(format!("{command}: done in {}", millis(*ms))),
        Event::CommandFailed { command, cause, hint } => {
            let text = format!(
                "{command} failed: {}\nthe app was not restarted, and runs on as it was",
                plain_line(cause)
            );
            warning(with_hint(text, hint.as_deref()))
        }
        Event::WouldSync { path, change } => plain(format!("would {change} {path}")),
        Event::Ended { reason } => plain(reason.clone()),
        Event::Disconnected { cause } => {
            warning(format!("disconnected: {}; trying again until it is back", plain_line(cause)))
        }
        Event::Reconnected { app, pid, ms } => {
            plain(format!("reconnected to {app} (pid {pid}) after {}", millis(*ms)))
        }
        Event::Reconnecting { .. } | Event::Built { .. } | Event::BuildOutput { .. } => None,
        Event::Synced(_) | Event::Restarted(_) | Event::Ready { .. } | Event::Error { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hops(total: f64) -> Hops {
        Hops { total, ..Hops::default() }
    }

    #[test]
    fn a_save_is_one_line() {
        let save = Synced { files: 2, bytes: 1300, ms: hops(6.04), ..Synced::default() };
        assert_eq!(synced(&save), "synced 2 files (1.3 KB) in 6.0 ms");
        let restart = Restarted {
            app: "demo".to_owned(),
            mode: RestartMode::Reexec,
            old_pid: 7,
            new_pid: 7,
            count: 1,
            ms: hops(40.0),
        };
        assert_eq!(restarted(&restart), "restarted demo in place (same PID)");
        assert_eq!(ready(&[8080], &[], &hops(84.2)).as_deref(), Some("ready in 84 ms"));
        let again = Restarted { mode: RestartMode::Supervise, new_pid: 9, count: 3, ..restart };
        assert_eq!(restarted(&again), "restarted demo (PID 7 → 9, restart 3)");
    }

    #[test]
    fn other_outcomes_of_a_save() {
        let gone = Synced { deleted: 3, ms: hops(12.0), ..Synced::default() };
        assert_eq!(synced(&gone), "deleted 3 in 12 ms");
        let both = Synced { files: 1, bytes: 5, ..gone };
        assert_eq!(synced(&both), "synced 1 file (5 B), deleted 3 in 12 ms");
        assert_eq!(synced(&Synced { ms: hops(1.0), ..Synced::default() }), "nothing to sync (1.0 ms)");
        assert_eq!(ready(&[], &[], &hops(1.0)), None);
        let missing = ready(&[80], &[8080, 8443], &hops(1.0));
        assert_eq!(missing.as_deref(), Some("NOT READY: nothing listens on port 8080, 8443"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(84_200_000), "84.2 MB");
        assert_eq!(bytes(999_990), "1.0 MB");
        assert_eq!(millis(0.84), "0.8 ms");
        assert_eq!(millis(12_345.0), "12.3 s");
        assert_eq!(count(1, "file"), "1 file");
    }

    #[test]
    fn events_carry_the_hops() {
        let save =
            Synced { files: 1, bytes: 5, ms: Hops { wire: Some(1.5), ..hops(2.0) }, ..Synced::default() };
        let json = serde_json::to_value(Event::Synced(save)).expect("serializes");
        assert_eq!(json["event"], "synced");
        assert_eq!(json["ms"], serde_json::json!({"wire": 1.5, "total": 2.0}));
    }
}
