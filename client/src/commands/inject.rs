//! `devsync inject`: manifests in, manifests with devsync in them out; a filter, or a KRM function.

mod apply;
mod input;

use std::io::Write;
use std::process::ExitCode;

use devsync_injector::Config;
use devsync_injector::documents::Document;
use devsync_injector::filter::{Filter, Filtered, KrmError};
use devsync_injector::security::Level;
use devsync_protocol::contract::annotation;
use serde_json::Value;

use crate::cli::{InjectArgs, LevelWord};
use crate::error::{CommandError, StdoutError};
use input::Input;

pub async fn run(args: &InjectArgs) -> Result<ExitCode, CommandError> {
    let filter = filter(args)?;
    if args.krm {
        return krm(&filter);
    }
    let inputs = tokio::task::block_in_place(|| input::read_all(&args.files))?;
    let mut done = Vec::new();
    // All of it first: what is printed is whole.
    for input in &inputs {
        done.push(filter.stream(&input.bytes).map_err(|error| broken(input, &error))?);
    }
    for (input, (_, filtered)) in inputs.iter().zip(&done) {
        tell(filtered, (inputs.len() > 1).then_some(input.name.as_str()));
    }
    if args.apply {
        let objects = done.iter().flat_map(|(stream, _)| &stream.documents).filter_map(Document::value);
        return apply::run(&args.cluster, objects.flat_map(items).collect()).await;
    }
    print(&input::joined(&done))?;
    Ok(ExitCode::SUCCESS)
}

/// The objects of a document: those in a List, else itself; what has no kind is no object.
fn items(document: &Value) -> Vec<Value> {
    match document["items"].as_array().filter(|_| document["kind"] == "List") {
        Some(items) => items.clone(),
        None if document["kind"].is_string() => vec![document.clone()],
        None => Vec::new(),
    }
}

/// What the options say.
fn filter(args: &InjectArgs) -> Result<Filter, CommandError> {
    let mut config = match &args.config {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| {
                CommandError::usage(format!("--config {} cannot be read", file.display())).cause(error)
            })?;
            Config::from_yaml(&text).map_err(|error| {
                CommandError::usage(format!("--config {} cannot be used", file.display())).cause(error)
            })?
        }
        None => Config::default(),
    };
    if let Some(image) = &args.agent_image {
        config.agent_image = image.clone();
    }
    let words = [
        (annotation::CONTAINER, args.container.clone()),
        (annotation::RESTART, args.restart.clone()),
        (annotation::WORKSPACE, args.workspace.clone()),
        (annotation::WAIT, args.wait.then(|| "true".to_owned())),
    ];
    let asked = words.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let level = args.level.map(|level| match level {
        LevelWord::Privileged => Level::Privileged,
        LevelWord::Baseline => Level::Baseline,
        LevelWord::Restricted => Level::Restricted,
    });
    Ok(Filter { config, level, native_sidecars: args.native_sidecars, asked, eject: args.eject })
}

fn krm(filter: &Filter) -> Result<ExitCode, CommandError> {
    let input = tokio::task::block_in_place(input::standard)?;
    match filter.krm(&input.bytes) {
        Ok(filtered) => {
            tell(&filtered, None);
            print(&filtered.text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(KrmError::Config { why, text }) => {
            // The function's protocol: the list comes back, with the failure among its results.
            print(&text)?;
            Err(CommandError::new("the ResourceList was not changed").cause(format!("functionConfig: {why}")))
        }
        Err(KrmError::Document(error)) => Err(broken(&input, &error)),
        Err(error @ KrmError::NoList) => Err(CommandError::of(error)
            .hint("without --krm `devsync inject` takes plain manifests; kustomize gives a function its ResourceList")),
    }
}

fn broken(input: &Input, error: &devsync_injector::documents::DocumentError) -> CommandError {
    CommandError::new(format!("{}: {error}", input.name))
        .hint("nothing was printed; correct the text there, or look at what made it")
}

/// What was done goes beside the text, not into it.
fn tell(filtered: &Filtered, file: Option<&str>) {
    let mut stderr = std::io::stderr().lock();
    let from = file.map(|file| format!("{file}: ")).unwrap_or_default();
    let lines = filtered.did.iter().map(|line| (false, line));
    for (is_warning, line) in lines.chain(filtered.warnings.iter().map(|line| (true, line))) {
        let mark = if is_warning { "warning: " } else { "" };
        let line = crate::report::plain(&format!("{from}{line}"));
        // Who reads standard output may not read this.
        let _ = writeln!(stderr, "{mark}{line}");
    }
}

fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| StdoutError(error).into())
}
