//! `devsync doctor`: looks at the laptop, the cluster and the app, and says what will not work, and what mends it.

use std::path::Path;
use std::process::ExitCode;

use devsync_protocol::finding::Finding;

use super::{say, say_json};
use crate::beside::Beside;
use crate::cli::{DoctorArgs, Output, TargetWord};
use crate::cluster::{self, PodTarget, WorkloadRef};
use crate::config::Config;
use crate::connect::Route;
use crate::doctor::Diagnosis;
use crate::doctor::laptop::{self, failure};
use crate::error::CommandError;
use crate::settings;

pub async fn run(args: &DoctorArgs) -> Result<ExitCode, CommandError> {
    let (config, project, unreadable) = match settings::project_of(args.target.target.as_ref()) {
        Ok((config, project)) => (config, project, None),
        // A mistake in it is a finding, but a target that only it names cannot be looked at.
        Err(error) if matches!(args.target.target, Some(TargetWord::Named(_))) => return Err(error),
        Err(error) => (Config::default(), std::env::current_dir().unwrap_or_default(), Some(error)),
    };
    let route = settings::route(&args.target, &config, &project);
    let mut diagnosis = Diagnosis::default();
    let mut here = look_here(&project, args, route.as_ref());
    here.extend(unreadable.map(|error| failure("settings", &error)));
    diagnosis.add("laptop", here);
    match &route {
        Some(route) if !route.target.is_in_cluster() => beside(route, &mut diagnosis).await,
        route => in_cluster(args, route.as_ref(), &mut diagnosis).await,
    }
    match args.output {
        Output::Json => say_json(&diagnosis)?,
        Output::Text => say(&diagnosis.words())?,
    }
    Ok(if diagnosis.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look_here(project: &Path, args: &DoctorArgs, route: Option<&Route>) -> Vec<Finding> {
    let mut found = laptop::watch(project);
    match route.map(|route| &route.target) {
        Some(TargetWord::Pid(_)) => found.push(laptop::agent()),
        Some(target) if !target.is_in_cluster() => {}
        _ => {
            let cluster = route.map_or(&args.target.cluster, |route| &route.cluster);
            found.push(laptop::kubeconfig(cluster, route.is_some()));
        }
    }
    found
}

/// The cluster, and the app where one is named and has an agent.
async fn in_cluster(args: &DoctorArgs, route: Option<&Route>, diagnosis: &mut Diagnosis) {
    let wanted = route.map_or(&args.target.cluster, |route| &route.cluster);
    if cluster::place(wanted).is_err() {
        // It was said.
        return;
    }
    let cluster = match cluster::Cluster::connect(wanted).await {
        Ok(cluster) => cluster,
        Err(error) => return diagnosis.add("cluster", vec![failure("server", &error)]),
    };
    let workload = route.and_then(|route| WorkloadRef::of(&route.target));
    let seen = cluster::examine(&cluster, workload.as_ref(), wanted.container.as_deref()).await;
    diagnosis.add(format!("cluster (context {})", cluster.context), seen.cluster);
    if let (Some(workload), Some(found)) = (&workload, seen.workload) {
        diagnosis.add(workload.to_string(), found);
    }
    if let Some(pod) = seen.pod
        && let Some(agent) = pod.agent.clone()
    {
        let name = name_of(&pod);
        ask(&Beside::in_pod(cluster, pod, agent), name, diagnosis).await;
    }
}

fn name_of(pod: &PodTarget) -> String {
    format!("container {} of {pod}", pod.container)
}

async fn beside(route: &Route, diagnosis: &mut Diagnosis) {
    let name = route.name();
    match Beside::find(route).await {
        Ok(beside) => ask(&beside, name, diagnosis).await,
        Err(error) => diagnosis.add(name, vec![failure("agent", &error)]),
    }
}

/// What the agent beside the app says.
async fn ask(beside: &Beside, name: String, diagnosis: &mut Diagnosis) {
    let told = beside.ask("doctor", &[]).await;
    let found = match told.map(|told| Finding::parse_all(&told)) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            let fix = "the agent and this devsync must be of one release";
            vec![Finding::problem("agent", error.to_string(), fix)]
        }
        Err(error) => vec![failure("agent", &error)],
    };
    diagnosis.add(name, found);
}
