//! The admission webhook around the library: [`run`] serves it until it is told to end.
//!
//! No request asks the API server anything: namespaces, configuration and certificates come from watches. Nothing that
//! goes wrong keeps a pod from being made: it is allowed as it is, and a warning says why.

mod accept;
mod certificate;
mod http;
mod keeper;
mod lease;
mod metrics;
mod names;
mod patch;
mod places;
mod replicas;
mod review;
mod rotation;
mod settings;
mod store;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use certificate::{CertificateError, Pair};
use http::App;
use keeper::Keeper;
pub use names::Names;
pub use rotation::Timing;
pub use settings::SettingsError;
use tls::Served;
pub use tls::TlsError;

/// How long the server's version is asked for again after it was not answered.
const AGAIN: Duration = Duration::from_secs(5);
/// Requests that are under way at the end have this long.
const GRACE: Duration = Duration::from_secs(10);

/// Where certificates, configuration and namespaces come from.
pub struct Config {
    /// The cluster; `None`: no API server is asked anything, and no namespace has rules.
    pub cluster: Option<(Client, Names)>,
    /// Files `tls.crt` and `tls.key` that somebody else keeps, in place of certificates of its own.
    pub tls_dir: Option<PathBuf>,
    /// A configuration that is read once, where there is no cluster.
    pub config_file: Option<PathBuf>,
    pub timing: Timing,
    /// How long it goes on serving after it has said that it ends, so that API servers hear of it first.
    pub drain: Duration,
}

#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("without a cluster there must be a directory with a certificate")]
    NoCertificate,
    #[error("{path:?} cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path:?} cannot be used")]
    Settings { path: PathBuf, source: SettingsError },
}

/// Serves the webhook on `listener` until `shutdown`, and then until what is under way is answered.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let app = Arc::new(App::new(config.cluster.is_none()));
    let served = Arc::new(match &config.tls_dir {
        Some(dir) => Served::directory(dir.clone())?,
        None if config.cluster.is_none() => return Err(ServerError::NoCertificate),
        None => Served::default(),
    });
    if let Some(path) = config.config_file {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ServerError::Read { path: path.clone(), source })?;
        app.settings.read(&text, &app.metrics).map_err(|source| ServerError::Settings { path, source })?;
    }
    let tls = tls::config(served.clone())?;
    let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
    if let Some((client, names)) = config.cluster {
        let keeps = config
            .tls_dir
            .is_none()
            .then(|| Keeper::new(client.clone(), names.clone(), config.timing, served, app.metrics.clone()));
        follow(&tasks, &end, &app, client, names, keeps);
    }
    let stop = CancellationToken::new();
    let ending = async {
        shutdown.cancelled().await;
        app.ending.store(true, Ordering::Relaxed);
        tracing::info!(seconds = config.drain.as_secs(), "ending: not ready from now on");
        tokio::time::sleep(config.drain).await;
        stop.cancel();
    };
    let serving = accept::serve(listener, tls, http::router(app.clone()), &app.metrics, stop.clone(), GRACE);
    tokio::join!(ending, serving);
    end.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Starts the watches; each ends with `end`.
fn follow(
    tasks: &TaskTracker,
    end: &CancellationToken,
    app: &Arc<App>,
    client: Client,
    names: Names,
    keeper: Option<Keeper>,
) {
    let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        let end = end.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = task => {}
            }
        });
    };
    spawn(Box::pin(namespaces(app.clone(), client.clone())));
    let (shared, map, key) = (app.clone(), names.config_map.clone(), names.config_key.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &names.namespace);
    spawn(Box::pin(object(maps, names.config_map.clone(), move |seen: Option<ConfigMap>| {
        shared.settings.seen(seen.as_ref(), &map, &key, &shared.metrics);
    })));
    if let Some(keeper) = keeper {
        let (secret, secrets) = watch::channel(None);
        let (webhook, webhooks) = watch::channel(None);
        let api: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
        spawn(Box::pin(object(api, names.secret, move |seen| drop(secret.send_replace(Some(seen))))));
        let api: Api<MutatingWebhookConfiguration> = Api::all(client);
        spawn(Box::pin(object(api, names.webhook, move |seen| drop(webhook.send_replace(Some(seen))))));
        spawn(Box::pin(keeper.keep(secrets, webhooks)));
    }
}

/// Follows all namespaces; ready when they are known, and what the server can is.
async fn namespaces(app: Arc<App>, client: Client) {
    app.places.set_native_sidecars(native_sidecars(&client).await);
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let synced = || {
        if !app.known.swap(true, Ordering::Relaxed) {
            tracing::info!("the namespaces are known");
        }
    };
    app.places.follow(events, &app.metrics, synced).await;
}

/// Whether the server takes init containers as sidecars: from 1.29 on.
async fn native_sidecars(client: &Client) -> bool {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                // Some distributions write `29+`.
                let number = |text: &str| {
                    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
                    digits.parse::<u32>().unwrap_or(0)
                };
                tracing::info!(version = version.git_version, "the API server");
                return (number(&version.major), number(&version.minor)) >= (1, 29);
            }
            Err(error) => {
                tracing::warn!(%error, "the API server's version is not known yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Follows one object; `seen` is told what it is, and that it is not there.
async fn object<K>(api: Api<K>, name: String, mut seen: impl FnMut(Option<K>) + Send)
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let changes = watcher::watch_object(api, &name).default_backoff();
    tokio::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(object) => seen(object),
            Err(error) => tracing::warn!(%error, name, "a watch broke"),
        }
    }
}
