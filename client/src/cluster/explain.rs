//! What the API server refused or why it was not reached, as a person's error: kind [`Kind::Cluster`], exit code 3.

use std::error::Error as _;

use kube::Error;
use kube::client::AuthError;
use kube::core::Status;

use super::Cluster;
use crate::error::{CommandError, Kind};
use crate::report::plain_line;

/// Explains a failed request. `doing` says what cannot be done now: "pod/demo cannot be read".
pub fn explain(error: Error, doing: &str) -> CommandError {
    at(error, doing, None)
}

pub(super) fn at(error: Error, doing: &str, cluster: Option<&Cluster>) -> CommandError {
    let what = CommandError::new(doing).kind(Kind::Cluster);
    let flag = cluster.map(Cluster::context_flag).unwrap_or_default();
    match error {
        Error::Api(status) if status.code == 401 => what
            .cause("the API server does not accept your login (401): the token or certificate is wrong or has expired")
            .hint(format!("log in again; kubectl{flag} get pods shows whether it worked")),
        Error::Api(status) if status.code == 403 => forbidden(what, &status),
        Error::Api(status) => {
            let message = plain_line(if status.message.is_empty() { &status.reason } else { &status.message });
            what.cause(format!("the API server answered {}: {message}", status.code))
        }
        Error::Auth(error) => what.cause(format!("the login failed: {}", login(&error))).hint(format!(
            "the kubeconfig's credential plugin must work by itself: kubectl{flag} get pods"
        )),
        Error::UpgradeConnection(error) => what
            .cause(format!("the API server did not open a stream: {}", chain(&error)))
            .hint("a proxy between here and there may not let WebSockets pass"),
        Error::Service(_) | Error::HyperError(_) => {
            let server = cluster.map_or("the API server", |c| &c.server);
            let cause = match find_login(&error) {
                Some(login_error) => login(login_error),
                None => error.source().map_or_else(|| error.to_string(), chain),
            };
            let cause = cause.trim_start_matches("client error (Connect): ");
            what.cause(format!("{server} cannot be reached: {cause}")).hint(format!("kubectl cluster-info{flag}"))
        }
        other => what.cause(chain(&other)),
    }
}

/// A failed login in words of our own where the library's would show a plugin's environment or its output, which hold
/// credentials.
fn login(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { out, .. } => format!("the credential plugin ended with {}", out.status),
        AuthError::AuthExecParse(_) | AuthError::AuthExecSerialize(_) | AuthError::ParseTokenKey(_) => {
            "the credential plugin's answer cannot be read".to_owned()
        }
        other => chain(other),
    }
}

/// The failed login below a failed request: credentials are renewed in the middle of one.
fn find_login(error: &Error) -> Option<&AuthError> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<AuthError>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// True where the server refused for want of a right.
pub(super) fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 403)
}

fn forbidden(what: CommandError, status: &Status) -> CommandError {
    match Missing::read(&status.message) {
        Some(missing) => {
            let hint = format!("somebody with the right to must add to your Role:\n{}", missing.rule());
            what.cause(missing.to_string()).hint(hint)
        }
        None => what
            .cause(format!("the API server refused it (403): {}", plain_line(&status.message)))
            .hint("kubectl auth can-i --list shows what you may do"),
    }
}

/// A right that is missing, as RBAC tells it.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    user: String,
    verb: String,
    resource: String,
    group: String,
    namespace: Option<String>,
}

impl Missing {
    /// Reads `… is forbidden: User "u" cannot create resource "pods/exec" in API group "" in the namespace "ns"`.
    fn read(message: &str) -> Option<Self> {
        let quoted = |before: &str| {
            let rest = message.split_once(&format!("{before} \""))?.1;
            Some(rest.split_once('"')?.0.to_owned())
        };
        let verb = message.split_once(" cannot ")?.1.split(' ').next()?.to_owned();
        Some(Self {
            user: quoted("User")?,
            verb,
            resource: quoted("resource")?,
            group: quoted("API group").unwrap_or_default(),
            namespace: quoted("in the namespace"),
        })
    }

    /// The rule for a Role, as one line of YAML.
    fn rule(&self) -> String {
        // WebSocket streams are opened with GET, older servers ask for create.
        let both = ["pods/exec", "pods/portforward", "pods/attach"].contains(&self.resource.as_str());
        let verbs = if both { "\"get\", \"create\"".to_owned() } else { format!("\"{}\"", self.verb) };
        format!("- {{apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [{verbs}]}}", self.group, self.resource)
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user, verb, resource, namespace, .. } = self;
        write!(f, "user {user} may not {verb} {resource}")?;
        match namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => write!(f, " in the whole cluster"),
        }
    }
}

/// An error and its sources in one line, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> Error {
        Error::Api(Status::failure(message, "Reason").with_code(code).boxed())
    }

    #[test]
    fn a_missing_right_is_named_with_its_rule() {
        let message = "pods \"demo-1\" is forbidden: User \"ann\" cannot create resource \"pods/exec\" in API group \
                       \"\" in the namespace \"shop\"";
        let error = explain(api(403, message), "the agent in pod/demo-1 cannot be asked");
        assert_eq!(error.kind, Kind::Cluster);
        assert_eq!(error.causes(), ["user ann may not create pods/exec in namespace shop"]);
        let hint = error.get_hint().expect("a hint");
        let rule = "- {apiGroups: [\"\"], resources: [\"pods/exec\"], verbs: [\"get\", \"create\"]}";
        assert!(hint.ends_with(rule), "{hint}");
        let cluster_wide = "nodes is forbidden: User \"ann\" cannot list resource \"nodes\" in API group \"\" at the \
                            cluster scope";
        let error = explain(api(403, cluster_wide), "x");
        assert_eq!(error.causes(), ["user ann may not list nodes in the whole cluster"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_credential_plugin_s_secrets_are_not_shown() {
        let output = std::process::Command::new("sh").args(["-c", "echo TOKEN-1; exit 3"]).output();
        let out = Box::new(output.expect("a shell"));
        let failed = || AuthError::AuthExecRun { cmd: "SECRET=TOKEN-2 plugin".to_owned(), out: out.clone() };
        for error in [Error::Auth(failed()), Error::Service(Box::new(failed()))] {
            let causes = explain(error, "x").causes().join("; ");
            assert!(causes.contains("exit status: 3") && !causes.contains("TOKEN"), "{causes}");
        }
    }

    #[test]
    fn what_is_refused_otherwise_keeps_the_server_s_words() {
        let error = explain(api(403, "violates PodSecurity \"restricted\""), "x");
        assert!(error.causes()[0].ends_with("violates PodSecurity \"restricted\""));
        let error = explain(api(401, "Unauthorized"), "x");
        assert!(error.causes()[0].contains("(401)") && error.get_hint().is_some());
        let error = explain(api(409, "conflict"), "x");
        assert_eq!(error.causes(), ["the API server answered 409: conflict"]);
    }
}
