//! An AdmissionReview in, an AdmissionReview out: pure. What cannot be understood is an error, which the API server
//! passes over (failurePolicy Ignore); what can be is always allowed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use devsync_protocol::contract::INJECTOR;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::metrics::Outcome;
use super::patch;
use crate::Config;
use crate::{Place, inject};

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// API servers may cut what is longer: each warning, and all of them together.
const WARNING: usize = 256;
const WARNINGS: usize = 4096;

/// A body that is no review.
#[derive(Debug, Error)]
pub(super) enum ReviewError {
    #[error("the body is no JSON of an AdmissionReview")]
    Json(#[source] serde_json::Error),
    #[error("a {kind:?} of {version:?} cannot be answered, only an {KIND} of {VERSION}")]
    Kind { version: String, kind: String },
    #[error("the review has no request")]
    NoRequest,
    #[error("the review's request has no uid")]
    NoUid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What is asked: fields of the request that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Default, Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kind: String,
}

/// An answer, as the body of the response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Value,
    pub(super) outcome: Outcome,
    pub(super) warnings: usize,
}

/// Reads a review.
pub(super) fn read(body: &[u8]) -> Result<Request, ReviewError> {
    let review: Review = serde_json::from_slice(body).map_err(ReviewError::Json)?;
    if review.api_version != VERSION || review.kind != KIND {
        let cut = |text: String| text.chars().take(64).collect();
        return Err(ReviewError::Kind { version: cut(review.api_version), kind: cut(review.kind) });
    }
    let request = review.request.ok_or(ReviewError::NoRequest)?;
    if request.uid.is_empty() { Err(ReviewError::NoUid) } else { Ok(request) }
}

/// Answers it. `unsure` is something that was not known, for the warnings.
pub(super) fn answer(request: &Request, config: &Config, place: &Place, unsure: Option<String>) -> Answer {
    if let Some(why) = foreign(request) {
        return allow(&request.uid, &[], vec![why], Outcome::Unchanged);
    }
    if !request.sub_resource.is_empty() {
        return allow(&request.uid, &[], Vec::new(), Outcome::Unchanged);
    }
    // The library does not panic; if it does after all, this pod goes without and the next one does not.
    let done = catch_unwind(AssertUnwindSafe(|| inject(&request.object, config, place)));
    let Ok(mut done) = done else {
        let why = "not injected: a fault in devsync-injector, see its log".to_owned();
        return allow(&request.uid, &[], vec![why], Outcome::Failed);
    };
    let operations = done.object.map(|after| patch::diff(&request.object, &after)).unwrap_or_default();
    let outcome = if operations.is_empty() { Outcome::Unchanged } else { Outcome::Injected };
    if outcome == Outcome::Injected {
        done.warnings.extend(unsure);
    }
    allow(&request.uid, &operations, done.warnings, outcome)
}

/// Why a request is not for this webhook, whatever its configuration says.
fn foreign(request: &Request) -> Option<String> {
    let Kind { group, version, kind } = &request.kind;
    let word = |text: &str| text.chars().take(32).collect::<String>();
    if (group.as_str(), version.as_str(), kind.as_str()) != ("", "v1", "Pod") {
        let name = format!("{}/{}, kind {}", word(group), word(version), word(kind));
        return Some(format!("not injected: only pods (v1) are, this is {name}; mend the webhook's rules"));
    }
    if request.operation != "CREATE" {
        let operation = word(&request.operation);
        return Some(format!(
            "not injected: only at CREATE, this is {operation:?}; mend the webhook's rules"
        ));
    }
    None
}

fn allow(uid: &str, operations: &[Value], warnings: Vec<String>, outcome: Outcome) -> Answer {
    let warnings = bounded(warnings);
    let mut response = json!({"uid": uid, "allowed": true});
    if !operations.is_empty() {
        response["patchType"] = json!("JSONPatch");
        // Base64, as the API has it.
        let patch = serde_json::to_vec(operations).unwrap_or_default();
        response["patch"] = json!(ByteString(patch));
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    let body = json!({"apiVersion": VERSION, "kind": KIND, "response": response});
    Answer { body, outcome, warnings: warnings.len() }
}

/// Short enough to arrive whole; control characters do not reach a terminal.
fn bounded(warnings: Vec<String>) -> Vec<String> {
    let mut left = WARNINGS;
    let mut kept = Vec::new();
    for warning in warnings {
        let text = format!("{INJECTOR}: {warning}");
        let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if text.len() > WARNING {
            text.truncate((0..=WARNING - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
        }
        if text.len() > left {
            break;
        }
        left -= text.len();
        kept.push(text);
    }
    kept
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Level;

    fn place() -> Place {
        Place { level: Level::Baseline, native_sidecars: false }
    }

    fn review(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut review = json!({
            "apiVersion": VERSION, "kind": KIND, "request": {
                "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
                "operation": "CREATE", "object": {
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "demo-"},
                    "spec": {"containers": [{"name": "app", "image": "shop"}]}}}});
        change(&mut review);
        review.to_string().into_bytes()
    }

    fn response(change: impl FnOnce(&mut Value)) -> Value {
        let request = read(&review(change)).expect("a review");
        answer(&request, &Config::default(), &place(), None).body["response"].clone()
    }

    #[test]
    fn a_pod_gets_a_patch_and_its_uid_back() {
        let response = response(|_| ());
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        let patch: ByteString = serde_json::from_value(response["patch"].clone()).expect("base64");
        let patch: Value = serde_json::from_slice(&patch.0).expect("a patch");
        assert!(patch.to_string().contains(devsync_protocol::contract::AGENT_CONTAINER), "{patch}");
        assert_eq!(response["patchType"], "JSONPatch");
    }

    #[test]
    fn what_is_no_review_is_named() {
        let said = |body: &[u8]| read(body).expect_err("no review").to_string();
        assert!(said(b"").contains("no JSON"));
        let at = read(b"{\"kind\": \n nonsense}").expect_err("no JSON");
        assert!(std::error::Error::source(&at).is_some_and(|e| e.to_string().contains("line 2 column")));
        assert!(said(b"[]").contains("no JSON") && said(b"{}").contains("cannot be answered"));
        assert!(said(&review(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1"))).contains("v1beta1"));
        assert!(said(&review(|r| r["kind"] = json!("Pod"))).contains("Pod"));
        assert!(said(&review(|r| r["request"] = Value::Null)).contains("no request"));
        assert!(said(&review(|r| r["request"]["uid"] = json!(""))).contains("no uid"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(said(deep.as_bytes()).contains("no JSON"));
    }

    #[test]
    fn what_is_not_for_this_webhook_is_allowed_and_the_warning_says_why() {
        for (change, says) in [
            (json!({"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}}), "only pods"),
            (json!({"kind": {"group": "", "version": "v2", "kind": "Pod"}}), "v2"),
            (json!({"operation": "UPDATE"}), "UPDATE"),
            (json!({"operation": ""}), "only at CREATE"),
        ] {
            let response = response(|review| {
                for (key, value) in change.as_object().expect("fields") {
                    review["request"][key] = value.clone();
                }
            });
            assert!(response["allowed"] == true && response["patch"].is_null(), "{response}");
            assert!(response["warnings"][0].as_str().is_some_and(|w| w.contains(says)), "{response}");
        }
    }

    #[test]
    fn objects_of_any_form_are_allowed() {
        for object in
            [json!(null), json!([]), json!("pod"), json!({"kind": "Pod", "spec": 7}), json!({"spec": {}})]
        {
            let response = response(|review| review["request"]["object"] = object.clone());
            assert_eq!(response["allowed"], true, "{object}");
        }
    }

    #[test]
    fn warnings_are_short_and_plain() {
        let many = bounded((0..100).map(|n| format!("{n} \u{1b}[2J{}", "ü".repeat(300))).collect());
        assert!(many.len() > 10 && many.iter().map(String::len).sum::<usize>() <= WARNINGS);
        assert!(many.iter().all(|w| w.len() <= WARNING && !w.contains('\u{1b}') && w.starts_with(INJECTOR)));
    }
}
