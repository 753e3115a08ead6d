//! What is known of each namespace, from a watch: no request waits for the API server.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

use super::metrics::Metrics;
use crate::Place;
use crate::security::Level;

/// A namespace that was made a moment ago is on its way here; longer than this nobody waits for it.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// The levels of all namespaces, and what the server can.
#[derive(Debug)]
pub(super) struct Places {
    levels: RwLock<HashMap<String, Level>>,
    /// A list that is being read anew; it takes the place of the other when it is complete.
    listing: Mutex<Option<HashMap<String, Level>>>,
    changed: watch::Sender<u64>,
    native_sidecars: RwLock<bool>,
    /// Without a cluster every namespace is one without rules.
    offline: bool,
}

impl Places {
    pub(super) fn new(offline: bool) -> Self {
        Self {
            levels: RwLock::default(),
            listing: Mutex::default(),
            changed: watch::channel(0).0,
            native_sidecars: RwLock::default(),
            offline,
        }
    }

    pub(super) fn set_native_sidecars(&self, native: bool) {
        *self.native_sidecars.write().unwrap_or_else(PoisonError::into_inner) = native;
    }

    /// What is known of a namespace, and a warning where that is nothing: then the strictest level is assumed, whose
    /// pods every level takes.
    pub(super) async fn of(&self, namespace: &str) -> (Place, Option<String>) {
        let native_sidecars = *self.native_sidecars.read().unwrap_or_else(PoisonError::into_inner);
        let place = |level| Place { level, native_sidecars };
        if self.offline {
            return (place(Level::Privileged), None);
        }
        let mut changes = self.changed.subscribe();
        let seen = timeout(ON_ITS_WAY, async {
            loop {
                if let Some(level) = self.level(namespace) {
                    return level;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        match seen.await {
            Ok(level) => (place(level), None),
            Err(_) => {
                let name: String = namespace.chars().take(63).collect();
                let why = format!(
                    "namespace {name} is not known yet: the agent fits the restricted level, and may not reach the app"
                );
                (place(Level::Restricted), Some(why))
            }
        }
    }

    fn level(&self, namespace: &str) -> Option<Level> {
        self.levels.read().unwrap_or_else(PoisonError::into_inner).get(namespace).copied()
    }

    /// Follows a watch of namespaces; `synced` is told when all are known. Never ends by itself.
    pub(super) async fn follow<S>(&self, events: S, metrics: &Metrics, synced: impl Fn())
    where
        S: Stream<Item = watcher::Result<Event<PartialObjectMeta<Namespace>>>>,
    {
        tokio::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if self.event(event) {
                        synced();
                    }
                    let count = self.levels.read().unwrap_or_else(PoisonError::into_inner).len();
                    metrics.namespaces.set(i64::try_from(count).unwrap_or(i64::MAX));
                    self.changed.send_modify(|count| *count = count.wrapping_add(1));
                }
                // What is known stays; the watcher begins anew by itself.
                Err(error) => tracing::warn!(%error, "the watch of namespaces broke"),
            }
        }
    }

    /// True when a list is complete.
    fn event(&self, event: Event<PartialObjectMeta<Namespace>>) -> bool {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut levels = self.levels.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => *listing = Some(HashMap::new()),
            Event::InitApply(namespace) => {
                if let (Some(listing), Some((name, level))) = (listing.as_mut(), read(&namespace)) {
                    listing.insert(name, level);
                }
            }
            Event::InitDone => {
                if let Some(listed) = listing.take() {
                    *levels = listed;
                    return true;
                }
            }
            Event::Apply(namespace) => {
                if let Some((name, level)) = read(&namespace) {
                    levels.insert(name, level);
                }
            }
            Event::Delete(namespace) => {
                if let Some(name) = &namespace.metadata.name {
                    levels.remove(name);
                }
            }
        }
        false
    }
}

fn read(namespace: &PartialObjectMeta<Namespace>) -> Option<(String, Level)> {
    let metadata = &namespace.metadata;
    let object = json!({"metadata": {"labels": metadata.labels, "annotations": metadata.annotations}});
    Some((metadata.name.clone()?, Level::of_namespace(&object)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::ObjectMeta;

    use super::*;

    fn namespace(name: &str, level: &str) -> PartialObjectMeta<Namespace> {
        let labels = BTreeMap::from([("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned())]);
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        PartialObjectMeta { metadata, ..PartialObjectMeta::default() }
    }

    #[tokio::test]
    async fn a_list_replaces_what_was_known_only_when_it_is_complete() {
        let places = Places::new(false);
        places.event(Event::Init);
        places.event(Event::InitApply(namespace("a", "baseline")));
        assert_eq!(places.level("a"), None);
        assert!(places.event(Event::InitDone));
        assert_eq!(places.of("a").await.0.level, Level::Baseline);
        places.event(Event::Apply(namespace("b", "restricted")));
        places.event(Event::Init);
        assert_eq!(places.level("b"), Some(Level::Restricted));
        places.event(Event::InitApply(namespace("b", "privileged")));
        places.event(Event::InitDone);
        assert_eq!((places.level("a"), places.level("b")), (None, Some(Level::Privileged)));
        places.event(Event::Delete(namespace("b", "privileged")));
        assert_eq!(places.level("b"), None);
    }

    #[tokio::test]
    async fn an_unknown_namespace_is_taken_for_a_strict_one() {
        let (place, why) = Places::new(false).of("nowhere").await;
        assert_eq!(place.level, Level::Restricted);
        assert!(why.is_some_and(|why| why.contains("nowhere")));
    }
}
