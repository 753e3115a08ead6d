//! The arguments of `inject`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  kubectl get deploy demo -o yaml | devsync inject | kubectl apply -f -
  devsync inject -f manifests/ | kubectl apply -f -
  kubectl kustomize overlays/dev | devsync inject --level restricted --workspace /app | kubectl apply -f -
  helm upgrade demo chart/ --post-renderer devsync --post-renderer-args inject      (Helm 3)
  devsync inject --eject -f injected.yaml
  devsync inject -f manifests/ --apply -n shop --dry-run

What is not changed keeps its bytes. What was done, and what could not be done and why, goes to standard error.
A pod, or a workload's pod template, with the label or annotation devsync.dev/inject: disabled is left alone.";

/// A Pod Security level, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelWord {
    Privileged,
    Baseline,
    Restricted,
}

/// Where `--apply` goes: kubectl's names.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Have the server check it all and change nothing
    #[arg(long, requires = "apply", help_heading = "With --apply")]
    pub dry_run: bool,
    /// Do not ask, whatever the cluster and its namespaces are
    #[arg(short = 'y', long, requires = "apply", help_heading = "With --apply")]
    pub yes: bool,
    /// The namespace of objects that name none (default: the context's)
    #[arg(short, long, requires = "apply", value_name = "NAME", help_heading = "With --apply")]
    pub namespace: Option<String>,
    /// The context in the kubeconfig (default: the current one)
    #[arg(long, requires = "apply", value_name = "NAME", help_heading = "With --apply")]
    pub context: Option<String>,
    /// The kubeconfig (default: $KUBECONFIG, else ~/.kube/config)
    #[arg(long, requires = "apply", value_name = "FILE", help_heading = "With --apply")]
    pub kubeconfig: Option<PathBuf>,
    /// Act as this user: impersonation
    #[arg(long = "as", requires = "apply", value_name = "USER", help_heading = "With --apply")]
    pub as_user: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct InjectArgs {
    /// A manifest, a directory with manifests, or - for standard input. Can be given more than once
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-")]
    pub files: Vec<String>,
    /// Take devsync out again: what it replaced comes back
    #[arg(long)]
    pub eject: bool,
    /// Apply what comes out to the cluster instead of printing it: server-side, as field manager devsync, never by force
    #[arg(long, conflicts_with = "krm")]
    pub apply: bool,
    #[command(flatten)]
    pub cluster: ApplyArgs,
    /// Be a KRM function: a ResourceList in, a ResourceList out (kustomize)
    #[arg(long, conflicts_with = "files")]
    pub krm: bool,

    /// The Pod Security level of the namespace. Default: of a Namespace in the input, else privileged
    #[arg(long, value_enum, value_name = "LEVEL", help_heading = "How it is injected")]
    pub level: Option<LevelWord>,
    /// The server has native sidecars (Kubernetes 1.29): Jobs get an agent too
    #[arg(long, help_heading = "How it is injected")]
    pub native_sidecars: bool,
    /// The injector's configuration, as its ConfigMap has it
    #[arg(long, value_name = "FILE", help_heading = "How it is injected")]
    pub config: Option<PathBuf>,
    /// The agent's image
    #[arg(long, value_name = "IMAGE", help_heading = "How it is injected")]
    pub agent_image: Option<String>,
    /// The app's container or containers, where the pod has several
    #[arg(short, long, value_name = "NAME[,NAME]", help_heading = "How it is injected")]
    pub container: Option<String>,
    /// auto, reexec, supervise, signal:NAME or none
    #[arg(long, value_name = "MODE", help_heading = "How it is injected")]
    pub restart: Option<String>,
    /// A volume in the place of this directory, filled from the image: for files that the app's user may not write
    #[arg(long, value_name = "PATH", help_heading = "How it is injected")]
    pub workspace: Option<String>,
    /// Hold the app's first start until the first sync is in place
    #[arg(long, help_heading = "How it is injected")]
    pub wait: bool,
}
