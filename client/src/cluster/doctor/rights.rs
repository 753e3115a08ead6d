//! Which of the rights that an attach uses this user has: asked of the server, one review for each verb.

use std::collections::BTreeSet;

use devsync_protocol::finding::{Finding, Level};
use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::cluster::Cluster;

/// What a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// No attach without it.
    Attach,
    /// Part of it, as said.
    Part(&'static str),
    /// One of the ways to add an agent.
    Agent,
}

struct Rule {
    group: &'static str,
    /// `pods/exec`: with its subresource.
    resource: &'static str,
    verbs: &'static [&'static str],
    purpose: For,
}

const fn rule(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    purpose: For,
) -> Rule {
    Rule { group, resource, verbs, purpose }
}

const NAMED: For = For::Part("targets of that kind");
const NEWER: For = For::Part("servers from 1.35 on");

/// The Roles of manifests/rbac, as a test holds.
const RULES: &[Rule] = &[
    rule("", "pods", &["get", "list"], For::Attach),
    rule("", "pods/exec", &["get"], For::Attach),
    rule("", "pods/portforward", &["get"], For::Attach),
    rule("", "pods/exec", &["create"], NEWER),
    rule("", "pods/portforward", &["create"], NEWER),
    rule("", "pods", &["watch"], For::Part("following pods without asking again and again")),
    rule("", "pods", &["patch"], For::Part("the mark that says who is attached")),
    rule("", "events", &["create"], For::Part("the event that says who attached")),
    rule("", "pods/log", &["get"], For::Part("devsync logs, and why a pod does not come up")),
    rule("", "namespaces", &["get"], For::Part("knowing the namespace's Pod Security level")),
    rule("", "services", &["get"], NAMED),
    rule("apps", "deployments", &["get"], NAMED),
    rule("apps", "statefulsets", &["get"], NAMED),
    rule("apps", "daemonsets", &["get"], NAMED),
    rule("apps", "replicasets", &["get", "list"], NAMED),
    rule("batch", "jobs", &["get"], NAMED),
    rule("", "pods/ephemeralcontainers", &["patch"], For::Agent),
    rule("apps", "deployments", &["patch"], For::Agent),
];

type Right = (usize, &'static str);

/// The server's answers.
pub(super) struct Rights {
    refused: BTreeSet<Right>,
    /// Why something could not be asked.
    unasked: Option<String>,
}

/// Asks for each verb, all at once.
pub(super) async fn ask(cluster: &Cluster) -> Rights {
    let all = RULES.iter().enumerate().flat_map(|(at, rule)| rule.verbs.iter().map(move |verb| (at, *verb)));
    let answers = join_all(all.map(|right| async move { (right, may(cluster, right).await) })).await;
    let mut rights = Rights { refused: BTreeSet::new(), unasked: None };
    for (right, answer) in answers {
        match answer {
            Ok(true) => {}
            Ok(false) => {
                rights.refused.insert(right);
            }
            Err(why) => rights.unasked = Some(why),
        }
    }
    rights
}

async fn may(cluster: &Cluster, (at, verb): Right) -> Result<bool, String> {
    let Some(rule) = RULES.get(at) else { return Ok(false) };
    let (resource, subresource) = match rule.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (rule.resource, None),
    };
    // Of a namespace a Role permits only itself.
    let name = (resource == "namespaces").then(|| cluster.namespace.clone());
    let resource_attributes = Some(ResourceAttributes {
        namespace: Some(cluster.namespace.clone()),
        group: Some(rule.group.to_owned()),
        verb: Some(verb.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name,
        ..ResourceAttributes::default()
    });
    let spec = SelfSubjectAccessReviewSpec { resource_attributes, ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let params = PostParams::default();
    let asked = cluster.ask("your rights cannot be asked for", reviews.create(&params, &review)).await;
    asked.map(|answer| answer.status.is_some_and(|status| status.allowed)).map_err(|error| error.line())
}

impl Rights {
    /// What is missing for an attach, and what else is less. `create`: the server asks for it.
    pub(super) fn needed(&self, namespace: &str, create: bool) -> Vec<Finding> {
        let mut found: Vec<Finding> =
            (0..RULES.len()).filter_map(|at| self.finding(at, namespace, create)).collect();
        if let Some(why) = &self.unasked {
            let fix = "kubectl auth can-i --list shows what you may do";
            found.push(Finding::warning("rights", why.clone(), fix));
        } else if found.is_empty() {
            let count: usize =
                RULES.iter().filter(|rule| rule.purpose != For::Agent).map(|rule| rule.verbs.len()).sum();
            found.push(Finding::ok(
                "rights",
                format!("you may do all that attach does in namespace {namespace}: {count} rights asked for"),
            ));
        }
        found
    }

    fn finding(&self, at: usize, namespace: &str, create: bool) -> Option<Finding> {
        let rule = RULES.get(at)?;
        let missing: Vec<&str> =
            rule.verbs.iter().copied().filter(|verb| self.refused.contains(&(at, *verb))).collect();
        let (level, purpose) = match rule.purpose {
            _ if missing.is_empty() => return None,
            For::Agent => return None,
            For::Attach => (Level::Problem, "no attach without it".to_owned()),
            For::Part(_) if rule.verbs == ["create"] && rule.resource.contains('/') && create => {
                (Level::Problem, "this server asks for it".to_owned())
            }
            For::Part(what) => (Level::Warning, format!("for {what}")),
        };
        let text = format!(
            "you may not {} {} in namespace {namespace}: {purpose}",
            missing.join(", "),
            rule.resource
        );
        Some(Finding { level, ..Finding::problem("rights", text, grant(rule, &missing)) })
    }

    /// Whether an agent can be added at all.
    pub(super) fn may_add(&self, namespace: &str) -> Option<Finding> {
        let ways = || RULES.iter().enumerate().filter(|(_, rule)| rule.purpose == For::Agent);
        let can =
            |(at, rule): (usize, &Rule)| rule.verbs.iter().all(|verb| !self.refused.contains(&(at, *verb)));
        let fix = || ways().map(|(_, rule)| grant(rule, rule.verbs)).collect::<Vec<_>>().join("  or  ");
        (self.unasked.is_none() && !ways().any(can)).then(|| {
            let text = format!("you may add an agent to nothing in namespace {namespace}");
            Finding::problem("rights", text, format!("{}; or the webhook adds it: devsync install", fix()))
        })
    }
}

/// The YAML to add.
fn grant(rule: &Rule, verbs: &[&str]) -> String {
    format!(
        "add to your Role: - {{apiGroups: [{:?}], resources: [{:?}], verbs: {verbs:?}}}",
        rule.group, rule.resource
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(all: &[Right]) -> Rights {
        Rights { refused: all.iter().copied().collect(), unasked: None }
    }

    fn at(resource: &str, verb: &str) -> usize {
        let fits = |rule: &Rule| rule.resource == resource && rule.verbs.contains(&verb);
        RULES.iter().position(fits).expect("a rule")
    }

    #[test]
    fn a_missing_right_is_told_with_the_yaml_to_add() {
        let well = refused(&[]).needed("shop", false);
        assert!(matches!(&well[..], [only] if only.level == Level::Ok), "{well:?}");
        let exec =
            refused(&[(at("pods/exec", "get"), "get"), (at("pods", "watch"), "watch")]).needed("shop", false);
        assert_eq!(exec.iter().map(|f| f.level).collect::<Vec<_>>(), [Level::Problem, Level::Warning]);
        let fix = exec[0].fix.as_deref().unwrap_or_default();
        assert_eq!(fix, r#"add to your Role: - {apiGroups: [""], resources: ["pods/exec"], verbs: ["get"]}"#);
        let create = refused(&[(at("pods/exec", "create"), "create")]);
        assert_eq!(create.needed("shop", false)[0].level, Level::Warning);
        assert_eq!(create.needed("shop", true)[0].level, Level::Problem);
        let ways =
            [(at("pods/ephemeralcontainers", "patch"), "patch"), (at("deployments", "patch"), "patch")];
        assert!(refused(&ways[..1]).may_add("shop").is_none());
        assert!(refused(&ways).may_add("shop").is_some_and(|found| found.level == Level::Problem));
    }

    #[test]
    fn the_rights_asked_for_are_those_of_the_developer_s_role() {
        let role: serde_json::Value =
            serde_saphyr::from_str(include_str!("../../../../manifests/rbac/developer.yaml"))
                .expect("a Role");
        let words = |value: &serde_json::Value| -> Vec<String> {
            serde_json::from_value(value.clone()).expect("a list of words")
        };
        let mut granted = BTreeSet::new();
        for rule in role["rules"].as_array().expect("rules") {
            for (resource, verb) in words(&rule["resources"]).iter().flat_map(|resource| {
                words(&rule["verbs"]).into_iter().map(move |verb| (resource.clone(), verb))
            }) {
                granted.insert((words(&rule["apiGroups"])[0].clone(), resource, verb));
            }
        }
        let asked: BTreeSet<_> = RULES
            .iter()
            .filter(|rule| rule.purpose != For::Agent)
            .flat_map(|rule| {
                let row = |verb: &&str| (rule.group.to_owned(), rule.resource.to_owned(), (*verb).to_owned());
                rule.verbs.iter().map(row)
            })
            .collect();
        assert_eq!(asked, granted);
    }
}
