//! The rules that the workspace holds itself to, as data: licences, sources, versions, imports, texts.
//! The checks over this data are in tests/policy.rs; `deny.toml` repeats the lists for cargo-deny.

pub mod imports;
pub mod metadata;
pub mod spdx;
pub mod text;

/// Licences (SPDX) that a dependency may be used under.
pub const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The only place that dependencies come from.
pub const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate that may be there in more than one version, and why nothing can be done about it here.
pub struct Duplicate {
    /// A crate's name, or the beginning of several when it ends in `*`.
    pub name: &'static str,
    pub why: &'static str,
}

/// Every crate that is allowed twice.
pub const DUPLICATES: &[Duplicate] = &[
    Duplicate { name: "base64", why: "kube and the HTTP client below it are a release apart" },
    Duplicate {
        name: "embedded-io",
        why: "postcard has optional support for two generations; neither is built",
    },
    Duplicate { name: "getrandom", why: "ring is on 0.2, tempfile and the RustCrypto crates moved on" },
    Duplicate { name: "hashbrown", why: "the maps below kube-runtime and indexmap are of two ages" },
    Duplicate { name: "io-lifetimes", why: "fs-set-times of cap-std and cap-std itself are a release apart" },
    Duplicate {
        name: "num-bigint",
        why: "X.509 below rcgen (not built) and SSH keys below russh are a release apart",
    },
    Duplicate { name: "object", why: "a build script of the JSONPath parser below kube has its own" },
    Duplicate { name: "r-efi", why: "below both getrandoms; only in UEFI builds" },
    Duplicate { name: "syn", why: "derive crates are moving from 2 to 3; compile time only" },
    Duplicate { name: "windows*", why: "bindings of four ages below other crates; only in Windows builds" },
];

/// A crate that is refused below a version.
pub struct Minimum {
    pub name: &'static str,
    pub version: &'static str,
    pub why: &'static str,
}

/// Lowest versions without a known hole. An entry for a crate that is not in use costs nothing.
pub const MINIMUMS: &[Minimum] = &[
    Minimum { name: "cap-std", version: "3.4.1", why: "RUSTSEC-2024-0445: device names on Windows" },
    Minimum { name: "crossbeam-channel", version: "0.5.15", why: "RUSTSEC-2025-0024: double free on drop" },
    Minimum {
        name: "curve25519-dalek",
        version: "4.1.3",
        why: "RUSTSEC-2024-0344: timing of scalar subtraction",
    },
    Minimum {
        name: "ed25519-dalek",
        version: "2.0.0",
        why: "RUSTSEC-2022-0093: signing with a foreign public key",
    },
    Minimum { name: "mio", version: "0.8.11", why: "RUSTSEC-2024-0019: tokens of named pipes" },
    Minimum { name: "regex", version: "1.5.5", why: "RUSTSEC-2022-0013: unbounded compile time" },
    Minimum { name: "ring", version: "0.17.12", why: "RUSTSEC-2025-0009: AES panics on overflow checks" },
    Minimum { name: "russh", version: "0.63.0", why: "pre-auth memory limits and strict key exchange" },
    Minimum { name: "tokio", version: "1.44.2", why: "RUSTSEC-2025-0023: broadcast clones without Sync" },
    Minimum { name: "tracing-subscriber", version: "0.3.20", why: "RUSTSEC-2025-0055: escape codes in logs" },
];

/// Crates that may not be in the tree at all, and why.
pub const REFUSED: &[(&str, &str)] = &[
    ("openssl-sys", "agents are static and built for two architectures without a C toolchain for OpenSSL"),
    ("rsa", "RUSTSEC-2023-0071 (Marvin) has no fixed version; ed25519 is all that devsync needs"),
    ("serde_yaml", "no longer maintained"),
];
