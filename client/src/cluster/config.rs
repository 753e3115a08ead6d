//! The kubeconfig, found and read as kubectl does: --kubeconfig, else the files of KUBECONFIG, else ~/.kube/config,
//! else the service account of a pod that this runs in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::credential;
use super::explain::chain;
use super::proxy;
use super::target::did_you_mean;
use crate::cli::ClusterArgs;
use crate::error::{CommandError, Kind};

/// How long the TCP and TLS handshakes may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Where in which cluster: what tells two targets of one name apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    /// Empty in a cluster's own pod.
    pub context: String,
}

impl fmt::Display for Place {
    /// As kubectl's flags.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-n {}", self.namespace)?;
        if self.context.is_empty() { Ok(()) } else { write!(f, " --context {}", self.context) }
    }
}

pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) place: Place,
    /// When the credential plugin's answer ends.
    pub(super) until: Option<Timestamp>,
}

/// The namespace and the context that the arguments mean, without asking the cluster.
pub fn place(args: &ClusterArgs) -> Result<Place, CommandError> {
    match read(args)? {
        Some(kubeconfig) => {
            let context = context_name(&kubeconfig, args)?;
            let named = kubeconfig.contexts.iter().find(|c| c.name == context);
            let own = named.and_then(|c| c.context.as_ref()?.namespace.clone()).filter(|n| !n.is_empty());
            let namespace = args.namespace.clone().or(own).unwrap_or_else(|| "default".to_owned());
            Ok(Place { namespace, context })
        }
        None => {
            let config = Config::incluster().map_err(no_kubeconfig)?;
            let namespace = args.namespace.clone().unwrap_or(config.default_namespace);
            Ok(Place { namespace, context: String::new() })
        }
    }
}

pub(super) async fn load(args: &ClusterArgs) -> Result<Loaded, CommandError> {
    let place = place(args)?;
    let mut config = match read(args)? {
        Some(kubeconfig) => {
            let proxies = kubeconfig.clone();
            let options = KubeConfigOptions { context: Some(place.context.clone()), ..Default::default() };
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let mut config = config.map_err(|error| {
                let what = format!("the kubeconfig's context {} cannot be used", place.context);
                unusable(what, &error)
            })?;
            proxy::settle(&mut config, &proxies, &place.context);
            config
        }
        None => Config::incluster().map_err(no_kubeconfig)?,
    };
    config.default_namespace.clone_from(&place.namespace);
    config.connect_timeout = Some(CONNECT_WITHIN);
    if let Some(user) = &args.as_user {
        config.auth_info.impersonate = Some(user.clone());
    }
    let until = credential::settle(&mut config.auth_info, &place.context).await?;
    Ok(Loaded { config, place, until })
}

/// `None` where there is no kubeconfig at all. Files of KUBECONFIG that do not exist are passed over, as kubectl does.
fn read(args: &ClusterArgs) -> Result<Option<Kubeconfig>, CommandError> {
    if let Some(path) = &args.kubeconfig {
        return one(path.clone()).map(Some);
    }
    let named: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|value| std::env::split_paths(&value).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if named.is_empty() {
        let usual = std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists());
        return usual.map(one).transpose();
    }
    let mut merged: Option<Kubeconfig> = None;
    for path in named.iter().filter(|path| path.exists()) {
        let next = one(path.clone())?;
        merged = Some(match merged {
            None => next,
            Some(before) => before.merge(next).map_err(|error| {
                unusable(format!("{} does not go with the other kubeconfigs", path.display()), &error)
            })?,
        });
    }
    match merged {
        Some(merged) => Ok(Some(merged)),
        None => {
            let names: Vec<String> = named.iter().map(|path| path.display().to_string()).collect();
            Err(CommandError::new("there is no kubeconfig")
                .kind(Kind::Cluster)
                .cause(format!("KUBECONFIG names {}, which does not exist", names.join(" and ")))
                .hint("name one: --kubeconfig FILE"))
        }
    }
}

fn one(path: PathBuf) -> Result<Kubeconfig, CommandError> {
    Kubeconfig::read_from(&path)
        .map_err(|error| unusable(format!("the kubeconfig {} cannot be used", path.display()), &error))
}

fn no_kubeconfig(_: kube::config::InClusterError) -> CommandError {
    CommandError::new("there is no kubeconfig")
        .kind(Kind::Cluster)
        .cause("neither --kubeconfig nor KUBECONFIG names one, and there is no ~/.kube/config")
        .hint("kubectl config view shows what kubectl uses; pid/N attaches to a process of this machine")
}

fn unusable(what: String, error: &KubeconfigError) -> CommandError {
    // The parser shows the lines around its error, and a kubeconfig holds tokens.
    let cause = match error {
        KubeconfigError::Parse(_) => chain(error).lines().next().unwrap_or_default().to_owned(),
        other => chain(other),
    };
    CommandError::new(what).kind(Kind::Cluster).cause(cause).hint("kubectl config view")
}

fn context_name(kubeconfig: &Kubeconfig, args: &ClusterArgs) -> Result<String, CommandError> {
    let names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    let listed = || match names.is_empty() {
        true => "the kubeconfig has none".to_owned(),
        false => format!("its contexts: {}", names.join(", ")),
    };
    let current = || kubeconfig.current_context.clone().filter(|name| !name.is_empty());
    let Some(wanted) = args.context.clone().or_else(current) else {
        return Err(CommandError::new("no context is named, and the kubeconfig has no current one")
            .kind(Kind::Cluster)
            .cause(listed())
            .hint("name one: --context NAME, or kubectl config use-context NAME"));
    };
    if names.contains(&wanted.as_str()) {
        return Ok(wanted);
    }
    Err(CommandError::new(format!("the kubeconfig has no context {wanted}"))
        .kind(Kind::Cluster)
        .cause(listed())
        .hint(
            did_you_mean(&wanted, &names, "--context ")
                .unwrap_or_else(|| "kubectl config get-contexts".to_owned()),
        ))
}
