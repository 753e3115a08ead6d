//! `devsync inject --apply`: what came out goes to the cluster by server-side apply. Owns the words about it and the
//! order; never forces a field.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{ApplyArgs, ClusterArgs};
use crate::cluster::{Applied, Login, apply_object, check_place};
use crate::error::{CommandError, Kind, colour_on_stderr, render};
use crate::settings;

/// Applies every object, in the order in which they came; one that is refused does not keep the others back.
pub(super) async fn run(args: &ApplyArgs, objects: Vec<Value>) -> Result<ExitCode, CommandError> {
    if objects.is_empty() {
        return Err(CommandError::usage("there is nothing to apply").cause("no document has a kind"));
    }
    let of = ClusterArgs {
        namespace: args.namespace.clone(),
        context: args.context.clone(),
        kubeconfig: args.kubeconfig.clone(),
        as_user: args.as_user.clone(),
        ..ClusterArgs::default()
    };
    let login = Login::default();
    if !args.dry_run {
        check_places(&login, &of, args.yes, &objects).await?;
    }
    let mut worst = None::<Kind>;
    for object in &objects {
        let cluster = login.cluster(&of).await?;
        match apply_object(&cluster, object, args.namespace.as_deref(), args.dry_run).await {
            Ok((name, applied)) => say(&name, applied, args.dry_run)?,
            Err(error) => {
                // Who reads standard output may not read this.
                let _ = std::io::stderr().write_all(render(&error, colour_on_stderr()).as_bytes());
                worst = worst.into_iter().chain([error.kind]).max_by_key(|kind| kind.code());
            }
        }
    }
    Ok(worst.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.code())))
}

/// As attach asks: each namespace that objects are for, before the first of them is applied.
async fn check_places(
    login: &Login,
    of: &ClusterArgs,
    yes: bool,
    objects: &[Value],
) -> Result<(), CommandError> {
    let (config, _) = settings::project_of(None)?;
    let own = |object: &Value| object["metadata"]["namespace"].as_str().map(str::to_owned);
    let namespaces: BTreeSet<Option<String>> =
        objects.iter().map(|object| own(object).or_else(|| of.namespace.clone())).collect();
    for namespace in namespaces {
        let cluster = login.cluster(&ClusterArgs { namespace, ..of.clone() }).await?;
        check_place(&cluster, yes, &config.allow_contexts).await?;
    }
    Ok(())
}

fn say(name: &str, applied: Applied, dry_run: bool) -> Result<(), CommandError> {
    let word = match applied {
        Applied::Created => "created",
        Applied::Changed => "changed",
        Applied::Same => "unchanged",
    };
    let dry = if dry_run { " (dry run on the server)" } else { "" };
    super::print(&format!("{name} {word}{dry}\n"))
}
