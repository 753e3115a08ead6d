//! A serving certificate with an authority of its own: how the pair is made, and when it may be served.
//!
//! Each authority signs one certificate, and its key is dropped at once: what lies in the Secret can serve, and can
//! sign nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use thiserror::Error;

/// Clocks of API servers may be this much behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A certificate that cannot be made or served.
#[derive(Debug, Error)]
pub enum CertificateError {
    #[error("no certificate for {names:?} can be made")]
    Make { names: Vec<String>, source: rcgen::Error },
    #[error("{what} is no PEM file")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    #[error("the certificate and its key do not belong together, or are of no known kind")]
    Pair(#[source] rustls::Error),
    #[error("the certificate is not for {name}")]
    Name { name: String, source: rustls::Error },
    #[error("its authority did not sign the certificate, or its time is over")]
    Trust(#[source] rustls::Error),
}

/// A certificate, its key, and the authority that signed it, each as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub authority: String,
}

impl Pair {
    /// Makes a pair for these DNS names that is good until `now + lifetime`.
    pub fn make(names: &[String], now: SystemTime, lifetime: Duration) -> Result<Self, CertificateError> {
        pair(names, now, lifetime).map_err(|source| CertificateError::Make { names: names.to_vec(), source })
    }
}

fn pair(names: &[String], now: SystemTime, lifetime: Duration) -> Result<Pair, rcgen::Error> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = date_time_ymd(1970, 1, 1) + since.saturating_sub(BACKDATED);
    let last = date_time_ymd(1970, 1, 1) + since + lifetime;
    let mut authority = CertificateParams::new(Vec::new())?;
    // Two authorities are trusted for a while: their names tell them apart in a browser of certificates.
    authority
        .distinguished_name
        .push(DnType::CommonName, format!("devsync-injector authority {}", since.as_secs()));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (first, last);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let mut serving = CertificateParams::new(names.to_vec())?;
    serving.distinguished_name.push(DnType::CommonName, names.first().map_or("devsync-injector", |n| n));
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.use_authority_key_identifier_extension = true;
    (serving.not_before, serving.not_after) = (first, last);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = serving.signed_by(&key, &authority)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem(), authority: authority.pem() })
}

/// Reads a certificate chain and its key for a TLS server, and checks that they belong together.
pub(super) fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, CertificateError> {
    let chain = certificates("the certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|source| CertificateError::Pem { what: "the key", source })?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    let certified = certified.map_err(CertificateError::Pair)?;
    certified.keys_match().map_err(CertificateError::Pair)?;
    Ok(certified)
}

/// Checks that whoever trusts `authorities` would take the certificate for each of `names` at `now`.
pub(super) fn check(
    certified: &CertifiedKey,
    authorities: &[u8],
    names: &[String],
    now: SystemTime,
) -> Result<(), CertificateError> {
    let end = certified.end_entity_cert().map_err(CertificateError::Pair)?;
    let parsed = ParsedCertificate::try_from(end).map_err(CertificateError::Pair)?;
    let mut roots = RootCertStore::empty();
    for authority in certificates("the authority", authorities)? {
        roots.add(authority).map_err(CertificateError::Trust)?;
    }
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &certified.cert[1..], now, algorithms)
        .map_err(CertificateError::Trust)?;
    for name in names {
        let no = |source| CertificateError::Name { name: name.clone(), source };
        let server = ServerName::try_from(name.as_str())
            .map_err(|_| no(rustls::Error::General("no DNS name".to_owned())))?;
        verify_server_name(&parsed, &server).map_err(no)?;
    }
    Ok(())
}

/// The certificates of a PEM file, of which there must be one.
pub(super) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|source| CertificateError::Pem { what, source })?;
    if read.is_empty() { Err(CertificateError::Empty(what)) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn names() -> Vec<String> {
        vec!["devsync-injector.devsync-system.svc".to_owned()]
    }

    #[test]
    fn a_pair_is_taken_by_who_trusts_its_authority_and_by_nobody_else() -> Result<(), CertificateError> {
        let now = SystemTime::now();
        let pair = Pair::make(&names(), now, DAY)?;
        let other = Pair::make(&names(), now, DAY)?;
        let served = certified(pair.certificate.as_bytes(), pair.key.as_bytes())?;
        check(&served, pair.authority.as_bytes(), &names(), now)?;
        let both = format!("{}{}", other.authority, pair.authority);
        check(&served, both.as_bytes(), &names(), now)?;
        let refused = |authority: &str, names: &[String], now| {
            check(&served, authority.as_bytes(), names, now).expect_err("refused").to_string()
        };
        assert!(refused(&other.authority, &names(), now).contains("authority"));
        assert!(refused(&pair.authority, &names(), now + 2 * DAY).contains("time"));
        assert!(refused(&pair.authority, &["elsewhere.svc".to_owned()], now).contains("elsewhere.svc"));
        Ok(())
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() -> Result<(), CertificateError> {
        let one = Pair::make(&names(), SystemTime::now(), DAY)?;
        let other = Pair::make(&names(), SystemTime::now(), DAY)?;
        let mixed = certified(one.certificate.as_bytes(), other.key.as_bytes());
        assert!(matches!(mixed, Err(CertificateError::Pair(_))), "{mixed:?}");
        assert!(certified(b"", one.key.as_bytes()).is_err());
        assert!(certified(one.certificate.as_bytes(), b"-----BEGIN").is_err());
        Ok(())
    }
}
