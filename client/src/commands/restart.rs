//! `devsync restart`: the running attach restarts its app, or a session of its own does.

use std::process::ExitCode;
use std::time::Instant;

use devsync_protocol::message::Request;
use devsync_protocol::restart::{RestartMode, RestartReport};
use tokio::sync::mpsc;

use super::{Whom, say, say_json, whom};
use crate::app::App;
use crate::cli::{Output, RestartArgs};
use crate::connect::{Connected, Route, connect};
use crate::control::{self, Answer, Question};
use crate::error::CommandError;
use crate::report::{Event, Hops, Restarted, ready_words, restarted_words};
use crate::session::{self, Handle};
use crate::settings::{self, GRACE};

pub async fn run(args: &RestartArgs) -> Result<ExitCode, CommandError> {
    let (config, project) = settings::project_of(args.target.target.as_ref())?;
    settings::grace(args.grace)?;
    let text = match whom(&args.target, &config, &project)? {
        Whom::Running(holder) => {
            let mode = args.restart.as_ref().map(ToString::to_string);
            match control::ask(&holder, &Question::Restart { mode, grace: args.grace }).await? {
                Answer::Restarted { text } => text,
                other => return Err(control::failure(other)),
            }
        }
        Whom::Target(route) => by_ourselves(&route.quiet(args.output.quiet), args).await?,
    };
    match args.output.output {
        Output::Json => say_json(&serde_json::json!({"event": "restarted", "text": text}))?,
        Output::Text if !args.output.quiet => say(&text)?,
        Output::Text => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn by_ourselves(route: &Route, args: &RestartArgs) -> Result<String, CommandError> {
    let Connected { session, welcome, mut events, .. } = connect(route).await?;
    let app = App::new(&welcome.target).name();
    let done = restart(&session.handle(), &mut events, args, &app).await;
    session.close().await;
    done
}

async fn restart(
    handle: &Handle,
    events: &mut mpsc::Receiver<session::Event>,
    args: &RestartArgs,
    app: &str,
) -> Result<String, CommandError> {
    let mode = args.restart.clone().unwrap_or_default();
    let grace = settings::grace(args.grace)?.unwrap_or(GRACE);
    let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
    let mut outgoing = handle.outgoing().await;
    outgoing.push(&Request::Restart { seq: 1, after: None, mode, grace_ms }).await?;
    outgoing.flush().await?;
    drop(outgoing);
    let began = Instant::now();
    let mut text = String::new();
    loop {
        match events.recv().await {
            Some(session::Event::Restarted { report, .. }) => {
                let RestartReport { mode, old_pid, new_pid, count, .. } = report;
                let over = mode == RestartMode::None;
                let (app, ms) = (app.to_owned(), Hops::default());
                text = restarted_words(&Restarted { app, mode, old_pid, new_pid, count, ms });
                if over {
                    return Ok(text);
                }
            }
            Some(session::Event::Ready { report, .. }) => {
                let ms = Hops { total: crate::report::ms(began.elapsed()), ..Hops::default() };
                let event = Event::Ready { ports: report.ports, missing: report.missing, ms };
                let ready = ready_words(&event).map(|words| format!(" · {words}")).unwrap_or_default();
                return Ok(text + &ready);
            }
            Some(session::Event::RestartFailed { failure, .. }) => {
                return Err(CommandError::new(format!("{app} was not restarted ({})", failure.app))
                    .cause(format!("{}: {}", failure.what, failure.cause))
                    .hint_opt(Some(failure.hint).filter(|h| !h.is_empty())));
            }
            // That is what is changed now.
            Some(session::Event::Held { .. }) => {}
            Some(session::Event::Crashed { cause, .. }) => return Err(CommandError::new(cause)),
            Some(session::Event::Ended(error)) => return Err(error.into()),
            None => return Err(CommandError::new("the session ended")),
        }
    }
}
