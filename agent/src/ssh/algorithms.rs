//! The algorithms and russh settings of the server. Client and server keep the same lists
//! (client: `transport/ssh/algorithms.rs`).

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::Limits;
use super::throttle::WINDOW;

/// Strict key exchange (against Terrapin, CVE-2023-48795) exists only if its two names are in the list.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305];
/// Never used: every cipher authenticates by itself. Some clients refuse an empty list.
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// Keys a client may log in with; the host key is the first kind.
pub(super) const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// Longest packet that russh permits.
const PACKET: u32 = 65_535;
/// Every refusal takes at least this long, whatever the file said.
const REFUSAL: Duration = Duration::from_millis(100);

/// russh's settings for a server with this host key.
pub(super) fn server_config(host_key: &PrivateKey, limits: &Limits) -> Config {
    Config {
        // By the comment asyncssh and others know in which order the names of a symlink are sent.
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-devsync_",
            env!("CARGO_PKG_VERSION"),
            " sftp-as-OpenSSH"
        ))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REFUSAL,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key.clone()],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        event_buffer_size: 64,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        // russh counts the "none" request that asks for the methods; the handler counts keys exactly.
        max_auth_attempts: limits.auth_attempts + 1,
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        nodelay: true,
        ..Config::default()
    }
}
