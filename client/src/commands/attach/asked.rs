//! What a pod's own annotations say about an attach. It counts for less than the command line and devsync.toml.

use devsync_injector::Config;
use devsync_injector::annotations::Asked;
use devsync_protocol::message::Place;
use devsync_protocol::path::PodPath;
use devsync_protocol::restart::RestartMode;
use k8s_openapi::api::core::v1::Pod;

use crate::mapping::{Plan, Wishes};

/// The directory that is synced to, and how a save restarts the app.
#[derive(Debug, Default, PartialEq)]
pub(super) struct PodSays {
    root: Option<PodPath>,
    restart: Option<RestartMode>,
}

impl PodSays {
    /// Values that are not understood count as not said: the injector has named them.
    pub(super) fn of(pod: &Pod) -> Self {
        let metadata = serde_json::to_value(&pod.metadata).unwrap_or_default();
        let (asked, _) = Asked::read(&metadata, &Config::default());
        let root = asked.sync_root.or(asked.workspace);
        Self {
            root: root.and_then(|root| PodPath::new(root).ok()),
            restart: asked.restart.to_string().parse().ok().filter(|mode| *mode != RestartMode::Auto),
        }
    }

    /// Takes the place of what was found out: the app's working directory, and the best way to restart.
    pub(super) fn apply(self, plan: &mut Plan, wishes: &Wishes) {
        if let Some(restart) = self.restart {
            plan.restart = restart;
        }
        let Some(root) = self.root.filter(|_| wishes.sync.is_empty() && wishes.exe.is_none()) else { return };
        for mapping in plan.mappings.iter_mut().filter(|mapping| mapping.place == Place::Cwd) {
            mapping.place = Place::At(root.clone());
            plan.guessed = false;
            plan.because = format!("{}, and the pod's annotation says where", plan.because);
        }
    }
}

#[cfg(test)]
mod tests {
    use devsync_protocol::contract::annotation::{RESTART, SYNC_ROOT, WORKSPACE};

    use super::*;

    fn says(annotations: &[(&str, &str)]) -> PodSays {
        let annotations = annotations.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let mut pod = Pod::default();
        pod.metadata.annotations = Some(annotations.collect());
        PodSays::of(&pod)
    }

    #[test]
    fn annotations_say_where_and_how() {
        let both = says(&[(SYNC_ROOT, "/srv"), (WORKSPACE, "/app"), (RESTART, "signal:HUP")]);
        assert_eq!(both.root, PodPath::new("/srv").ok());
        assert_eq!(both.restart, "signal:HUP".parse().ok());
        assert_eq!(says(&[(WORKSPACE, "/app")]).root, PodPath::new("/app").ok());
        assert_eq!(says(&[(RESTART, "auto"), (SYNC_ROOT, "srv")]), PodSays::default());
    }

    #[test]
    fn what_a_person_says_goes_first() {
        let plan = |place| Plan {
            mappings: vec![crate::mapping::Mapping::new(crate::mapping::Source::Tree("x".into()), place)],
            build: None,
            restart: RestartMode::Auto,
            exe: None,
            guessed: true,
            confirm: None,
            because: "a Python app".to_owned(),
        };
        let root = || PodSays { root: PodPath::new("/srv").ok(), restart: None };
        let mut guessed = plan(Place::Cwd);
        root().apply(&mut guessed, &Wishes::default());
        assert!(
            !guessed.guessed && guessed.mappings[0].place == Place::At(PodPath::new("/srv").expect("a path"))
        );
        let mut told = plan(Place::Cwd);
        root().apply(&mut told, &Wishes { exe: Some("x".into()), ..Wishes::default() });
        assert!(told.guessed && told.mappings[0].place == Place::Cwd);
    }
}
