//! All pods of a workload: each has a loop of its own, new ones join, those that went leave.

use std::collections::BTreeMap;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::one::{self, One, Shared};
use crate::cli::{OutputArgs, TargetWord, WorkloadKind};
use crate::cluster::{Cluster, Seen, WorkloadRef, look, next_change};
use crate::connect::Route;
use crate::control::Desk;
use crate::error::{CommandError, Kind};
use crate::report::{Event, Reporter};
use crate::transport::ssh::Seat;

/// Keeps every pod in step until it is told to stop. A pod that fails does not end the others; with `--once` and at
/// the end the first failure is that of all.
pub(super) async fn run(
    all: One,
    shared: Shared,
    desk: &Desk,
    output: &OutputArgs,
) -> Result<(), CommandError> {
    let workload = WorkloadRef::of(&all.route.target).ok_or_else(|| {
        CommandError::usage(format!("{} is one target: --all-pods is for workloads", all.route.target))
            .hint("devsync attach deploy/demo --all-pods")
    })?;
    let container = all.route.cluster.container.clone();
    let mut fleet = Fleet {
        all,
        shared,
        desk: desk.clone(),
        output: output.clone(),
        pods: BTreeMap::new(),
        failed: BTreeMap::new(),
        containers: BTreeMap::new(),
    };
    let mut tasks: JoinSet<(String, Result<(), CommandError>)> = JoinSet::new();
    let mut failure = None;
    let mut said = Reporter::new(output).of(&fleet.all.name);
    let stop = fleet.shared.stop.clone();
    while !stop.is_cancelled() {
        let seen = tokio::select! {
            seen = fleet.look(&workload, container.as_deref()) => seen,
            () = stop.cancelled() => break,
        };
        let (cluster, seen) = match seen {
            Ok(seen) => seen,
            // Without a single pod there is nothing to keep going for.
            Err(error) if fleet.pods.is_empty() || error.is_lasting() => return Err(error),
            Err(error) => {
                let text = format!("the pods of {workload} cannot be looked for: {}", error.line());
                said.event(&Event::Note { text, hint: error.get_hint().map(str::to_owned) });
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
                continue;
            }
        };
        fleet.follow(&seen, &mut tasks);
        if fleet.pods.is_empty() && fleet.shared.once {
            let error = CommandError::new(format!("{workload} has no pod that can be attached to"));
            return Err(error.kind(Kind::Cluster));
        }
        if fleet.shared.once {
            break;
        }
        tokio::select! {
            () = next_change(&cluster, &workload, &seen.version) => {}
            Some(ended) = tasks.join_next() => fleet.ended(ended, &mut said, &mut failure),
            () = stop.cancelled() => {}
        }
    }
    while let Some(ended) = tasks.join_next().await {
        fleet.ended(ended, &mut said, &mut failure);
    }
    failure.map_or(Ok(()), Err)
}

struct Fleet {
    all: One,
    shared: Shared,
    desk: Desk,
    output: OutputArgs,
    /// What ends each.
    pods: BTreeMap<String, CancellationToken>,
    /// Those that failed, with the container in which they did: another one may do better.
    failed: BTreeMap<String, String>,
    containers: BTreeMap<String, String>,
}

type Ended = Result<(String, Result<(), CommandError>), tokio::task::JoinError>;

impl Fleet {
    async fn look(
        &self,
        workload: &WorkloadRef,
        container: Option<&str>,
    ) -> Result<(Cluster, Seen), CommandError> {
        let route = &self.all.route;
        let cluster = route.cluster().await?;
        match look(&cluster, workload, container).await {
            Ok(seen) => Ok((cluster, seen)),
            Err(error) => {
                route.login.doubt().await;
                Err(error)
            }
        }
    }

    /// Begins with those that are new, and ends those that are gone. One whose container comes up again stays.
    fn follow(&mut self, seen: &Seen, tasks: &mut JoinSet<(String, Result<(), CommandError>)>) {
        self.failed.retain(|name, _| seen.names.contains(name));
        self.containers.retain(|name, _| seen.names.contains(name));
        for (name, stop) in &self.pods {
            if !seen.names.contains(name) {
                stop.cancel();
            }
        }
        for pod in seen.attachable.iter().filter(|pod| pod.has_agent) {
            if self.pods.contains_key(&pod.pod) || self.failed.get(&pod.pod) == Some(&pod.container_id) {
                continue;
            }
            self.containers.insert(pod.pod.clone(), pod.container_id.clone());
            let shared = self.shared.for_one();
            self.pods.insert(pod.pod.clone(), shared.stop.clone());
            let target = TargetWord::Workload { kind: WorkloadKind::Pod, name: pod.pod.clone() };
            let one = One {
                name: pod.pod.clone(),
                route: Route { target, seat: Seat::default(), ..self.all.route.clone() },
                settings: self.all.settings.clone(),
                add: self.all.add.clone(),
            };
            let reporter = Reporter::new(&self.output).one_of_several(&pod.pod);
            let (desk, name) = (self.desk.clone(), pod.pod.clone());
            tasks.spawn(async move { (name, one::run(one, shared, &desk, reporter).await) });
        }
        // Taken over once: who has a pod after us is not thrown out because another container came.
        self.all.route.take_over = false;
    }

    fn ended(&mut self, ended: Ended, said: &mut Reporter, failure: &mut Option<CommandError>) {
        let (name, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                failure.get_or_insert(CommandError::new("the attach to a pod failed").cause(error));
                return;
            }
        };
        let was_told = self.pods.remove(&name).is_some_and(|stop| stop.is_cancelled());
        match result {
            Err(error) if !was_told && !self.shared.stop.is_cancelled() => {
                let container = self.containers.remove(&name).unwrap_or_default();
                self.failed.insert(name.clone(), container);
                said.event(&Event::Note {
                    text: format!("{name} is not kept in step any more: {}", error.line()),
                    hint: error.get_hint().map(str::to_owned),
                });
                failure.get_or_insert(error);
            }
            _ => {}
        }
    }
}
