//! `devsync status`: what is attached, from which directory, and how it does.

use std::process::ExitCode;

use super::{say, say_json};
use crate::cli::{Output, StatusArgs};
use crate::control::{self, Answer, Question};
use crate::engine::{State, Status};
use crate::error::CommandError;
use crate::report::{bytes, count, millis};

pub async fn run(args: &StatusArgs) -> Result<ExitCode, CommandError> {
    let mut statuses = Vec::new();
    for holder in control::running()? {
        // One that does not answer may have ended since.
        if let Ok(Answer::Status { targets }) = control::ask(&holder, &Question::Status).await {
            statuses.extend(targets);
        }
    }
    match args.output.output {
        Output::Json => statuses.iter().try_for_each(say_json)?,
        Output::Text if statuses.is_empty() => say("nothing is attached")?,
        Output::Text => statuses.iter().try_for_each(|status| say(&words(status)))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn words(status: &Status) -> String {
    let Status { target, app, since, directory, saves, restart, .. } = status;
    let app = if app.is_empty() { String::new() } else { format!("{app}, ") };
    let mut lines = vec![format!("{target}  {app}attached from {directory} since {since}")];
    lines.extend(state_words(&status.state).map(|words| format!("  {words}")));
    if status.state == State::Connecting {
        return lines.join("\n");
    }
    for root in &status.sync {
        lines.push(format!("  {} → {}  {}", root.from, root.to, count(root.entries, "entry")));
    }
    let build = status.build.as_ref().map(|b| format!(" · build: {b}")).unwrap_or_default();
    lines.push(format!("  restart: {restart}{build}"));
    let (sent, received) = (bytes(status.sent_bytes), bytes(status.received_bytes));
    let syncs = count(usize::try_from(*saves).unwrap_or(usize::MAX), "sync");
    lines.push(format!("  {syncs} · {sent} sent, {received} received"));
    lines.extend(
        status.conflicts.iter().map(|path| format!("  conflict: {path} (the pod's version was kept)")),
    );
    lines.join("\n")
}

/// `None` where everything is as it should be.
fn state_words(state: &State) -> Option<String> {
    match state {
        State::Attached => None,
        State::Connecting => Some("connecting".to_owned()),
        State::Syncing => Some("syncing: the pod does not have everything yet".to_owned()),
        State::Building => Some("building: nothing is sent before the build succeeds".to_owned()),
        State::Disconnected { for_ms, cause, attempt, retry_in_ms } => {
            let next = match retry_in_ms {
                Some(ms) => format!("trying again in {}", millis(*ms as f64)),
                None => "trying again now".to_owned(),
            };
            let tries = count(*attempt as usize, "try");
            let time = millis(*for_ms as f64);
            Some(format!("DISCONNECTED for {time}: {cause} · {tries} so far, {next}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StatusRoot;

    #[test]
    fn a_status_is_a_few_lines() {
        let root = StatusRoot { from: ".".into(), to: "/srv/app".into(), entries: 12 };
        let status = Status {
            target: "pid/7".into(),
            state: State::Attached,
            app: "demo".into(),
            pid: 7,
            since: "10:00:00 UTC".into(),
            directory: "/home/me/demo".into(),
            sync: vec![root],
            restart: "auto".into(),
            build: Some("make".into()),
            saves: 3,
            sent_bytes: 1500,
            received_bytes: 20,
            conflicts: vec!["/srv/app/x".into()],
        };
        let expected = "pid/7  demo, attached from /home/me/demo since 10:00:00 UTC\n  . → /srv/app  12 entries\n  \
                        restart: auto · build: make\n  3 syncs · 1.5 KB sent, 20 B received\n  \
                        conflict: /srv/app/x (the pod's version was kept)";
        assert_eq!(words(&status), expected);
        let cause = "the agent ended the session".to_owned();
        let state = State::Disconnected { for_ms: 12_000, cause, attempt: 3, retry_in_ms: Some(800) };
        let expected =
            "  DISCONNECTED for 12.0 s: the agent ended the session · 3 tries so far, trying again in 800 ms";
        let status = Status { state, ..status };
        assert_eq!(words(&status).lines().nth(1), Some(expected));
    }
}
