//! Who may depend on what, as data: between the packages of the workspace, and on the crates that decide
//! where IO, kernel and cluster code may live.

/// A crate that only some packages of the workspace may name in their manifest.
pub struct OnlyIn {
    pub dependency: &'static str,
    pub packages: &'static [&'static str],
    pub why: &'static str,
}

/// Direct dependencies that are fenced in.
pub const ONLY_IN: &[OnlyIn] = &[
    OnlyIn {
        dependency: "devsync-agent",
        packages: &["devsync-tests", "devsync-fuzz"],
        why: "client and injector know the agent by its protocol alone",
    },
    OnlyIn {
        dependency: "devsync-cli",
        packages: &["devsync-tests", "devsync-fuzz"],
        why: "nothing that runs in a pod may need the client",
    },
    OnlyIn {
        dependency: "devsync-injector",
        packages: &["devsync-cli", "devsync-tests"],
        why: "the injector is a library of the client and its own webhook",
    },
    OnlyIn { dependency: "notify", packages: &["devsync-cli"], why: "only the laptop watches files" },
    OnlyIn {
        dependency: "russh",
        packages: &["devsync-agent", "devsync-cli", "devsync-tests"],
        why: "SSH ends where the protocol begins",
    },
    OnlyIn {
        dependency: "axum",
        packages: &["devsync-injector"],
        why: "the webhook is the only HTTP server",
    },
    OnlyIn {
        dependency: "kube",
        packages: &["devsync-cli", "devsync-injector", "devsync-tests"],
        why: "the agent has no business with the API server",
    },
    OnlyIn {
        dependency: "k8s-openapi",
        packages: &["devsync-cli", "devsync-injector", "devsync-tests"],
        why: "the agent has no business with the API server",
    },
    OnlyIn {
        dependency: "procfs",
        packages: &["devsync-agent", "devsync-tests"],
        why: "the client also builds where there is no /proc",
    },
    OnlyIn {
        dependency: "nix",
        packages: &["devsync-agent", "devsync-cli", "devsync-tests"],
        why: "kernel calls live in the agent; the client may name them for Unix only",
    },
];

/// All that the protocol may use (no IO, no async, no clock).
pub const PROTOCOL: &[&str] = &["blake3", "fastcdc", "postcard", "serde", "thiserror", "zstd"];

/// A module of the agent and the modules it may name as `crate::…`; what is not listed is free.
pub struct Layer {
    pub module: &'static str,
    pub may_use: &'static [&'static str],
}

/// The agent's layers, lowest first.
pub const AGENT_LAYERS: &[Layer] = &[
    Layer { module: "sys", may_use: &["sys"] },
    Layer { module: "target", may_use: &["sys", "target"] },
    Layer { module: "sync", may_use: &["sys", "target", "sync"] },
    Layer { module: "restart", may_use: &["sys", "target", "supervisor", "restart"] },
    Layer { module: "supervisor", may_use: &["sys", "supervisor"] },
];
