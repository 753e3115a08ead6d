//! The words of `devsync install` and `devsync uninstall`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::OutputArgs;

const INSTALL_EXAMPLES: &str = "\
Examples:
  devsync install --dry-run                     what would be created or changed
  devsync install                               then: kubectl label namespace shop devsync.dev/inject=enabled
  devsync install --image mirror.example/devsync-injector:0.1.0 --agent-image mirror.example/devsync-agent:0.1.0
  devsync install -n team-a --only team=a       a second one, for namespaces that also have the label team=a";

/// Where an installation is.
#[derive(Debug, Clone, Args)]
pub struct InstallationArgs {
    /// The namespace of the webhook itself (default: devsync-system)
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context in the kubeconfig (default: the current one)
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig (default: $KUBECONFIG, else ~/.kube/config)
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as this user: impersonation
    #[arg(long = "as", value_name = "USER")]
    pub as_user: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = INSTALL_EXAMPLES)]
pub struct InstallArgs {
    #[command(flatten)]
    pub place: InstallationArgs,
    /// The webhook's image, where it comes from a mirror or was loaded into the nodes
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The agent's image that pods get
    #[arg(long, value_name = "IMAGE")]
    pub agent_image: Option<String>,
    /// The Secret of the webhook's namespace with the login for its registry
    #[arg(long, value_name = "NAME")]
    pub image_pull_secret: Option<String>,
    /// How many of it run
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub replicas: Option<u32>,
    /// Only namespaces that have this label too
    #[arg(long, value_name = "LABEL=VALUE")]
    pub only: Option<Label>,
    /// An argument for the webhook's program, see devsync-injector --help. Can be given more than once
    #[arg(long = "injector-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub injector_args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub place: InstallationArgs,
}

/// `LABEL=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("a label is LABEL=VALUE".to_owned()),
        }
    }
}
