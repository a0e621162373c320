//! Certificates with their keys, and which of them answers a name (spec static-config 4.3).
//!
//! A certificate is for its common name and all its alternative names. A client's name is looked up as it is, then with
//! its first labels replaced by `*`, as few as possible: `a.b.c`, `*.b.c`, `*.*.c`.
//! Never reads a file: PEM text comes in.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::provider;

/// Lifetime of the generated certificate.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate, its chain and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// Lower case, in byte order, each once.
    names: Arc<[String]>,
}

/// Why a pair of certificate and key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateError {
    NoCertificate,
    NoKey,
    /// What rustls says: a key of a kind that it does not know, or of another certificate.
    Unusable(String),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("failed to find any PEM data in certificate input"),
            Self::NoKey => f.write_str("failed to find any PEM data in key input"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CertificateError {}

impl Certificate {
    /// A certificate with its chain, and its key in PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// There is none in the text, it cannot be read, or the two do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        Self::from_der(chain, key)
    }

    fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let names = match chain.first() {
            Some(own) => names(own).map_err(|error| unusable(&error))?,
            None => return Err(CertificateError::NoCertificate),
        };
        let key =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unusable(&error))?;
        Ok(Self {
            key: Arc::new(key),
            names: names.into(),
        })
    }

    /// One that nobody has a reason to trust, for an entry point that was given none. Its key is ECDSA P-256, and it is
    /// good for a year from `now`.
    ///
    /// # Errors
    /// Out of randomness.
    pub fn generate(now: SystemTime) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let mut random = [0; 32];
        provider()
            .secure_random
            .fill(&mut random)
            .map_err(|_| unusable(&"out of randomness"))?;
        let mut name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        name.insert(32, '.');
        name.push_str(".traefik.default");
        let mut params = CertificateParams::new([name]).map_err(|error| unusable(&error))?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "TRAEFIK DEFAULT CERT");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now.into();
        params.not_after = (now + DEFAULT_LIFETIME).into();
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| unusable(&error))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| unusable(&error))?;
        Self::from_der(vec![certificate.der().clone()], key)
    }

    /// One that proves to an authority that we answer for `name` (RFC 8737 3), and is good for nothing else: its PEM and that
    /// of its key, for [`Certificate::proving`] here or on another node.
    ///
    /// # Errors
    /// It is no name, or out of randomness.
    pub fn proof(name: &str, digest: &[u8]) -> Result<(String, String), CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let mut params =
            CertificateParams::new([name.to_owned()]).map_err(|error| unusable(&error))?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key).map_err(|error| unusable(&error))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// What [`Certificate::proof`] made for `name`.
    ///
    /// # Errors
    /// One of the texts is not what it should be.
    pub fn proving(name: &str, chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let unusable = |error: &dyn fmt::Display| CertificateError::Unusable(error.to_string());
        let chain =
            CertificateDer::from_pem_slice(chain).map_err(|_| CertificateError::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            // Not compared with the key: rustls reads no certificate with an extension that it must know and does not.
            key: Arc::new(CertifiedKey::new(vec![chain], key)),
            names: [name.to_lowercase()].into(),
        })
    }

    /// What it is for: names and addresses, lower case, in byte order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// When the first certificate of a PEM text begins and ends to be good. `None` if there is none that can be read.
pub fn lifetime(chain: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let leaf = CertificateDer::pem_slice_iter(chain).next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&leaf).ok()?;
    let at = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    let validity = parsed.validity();
    Some((at(validity.not_before), at(validity.not_after)))
}

fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = parsed
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .filter(|name| !name.is_empty())
        .map(str::to_lowercase)
        .collect();
    if let Ok(Some(alternatives)) = parsed.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_lowercase()),
                GeneralName::IPAddress(bytes) => {
                    names.extend(address(bytes).map(|address| address.to_string()));
                }
                _ => {}
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Certificates by what they are for. The first one for a name has it.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, Arc<CertifiedKey>>);

impl Names {
    pub(super) fn new<'a>(certificates: impl Iterator<Item = &'a Certificate>) -> Self {
        let mut names = HashMap::new();
        for certificate in certificates {
            for name in certificate.names() {
                names
                    .entry(name.clone())
                    .or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Self(names)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Certificates that prove names, each for its names alone: no `*` is looked for.
    fn exact(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.0.get(&name.to_lowercase())
    }

    /// The certificates that are for an address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<CertifiedKey>)> {
        self.0
            .iter()
            .filter_map(|(name, key)| Some((name.parse().ok()?, key)))
    }

    /// Of all patterns that match, the last in byte order is the one with the fewest `*`: these sort before letters and
    /// digits. A name of a handshake has at most 253 bytes, and so at most 127 labels.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim().to_lowercase();
        if let Some(key) = self.0.get(&name) {
            return Some(key);
        }
        let mut stars = String::new();
        let mut rest = name.as_str();
        while !rest.is_empty() {
            rest = rest.find('.').map_or("", |dot| &rest[dot..]);
            stars.push('*');
            if let Some(key) = self.0.get(&format!("{stars}{rest}")) {
                return Some(key);
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
            stars.push('.');
        }
        None
    }
}

/// Is told the names that clients ask for and that no certificate is for. Called in handshakes, on any core: never waits.
#[derive(Clone)]
pub struct Missed(pub Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Missed")
    }
}

/// The protocol of a handshake that proves a name and carries nothing (RFC 8737 6.2).
pub(super) const PROVING: &[u8] = b"acme-tls/1";

/// What rustls asks.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    pub(super) names: Arc<Names>,
    /// For a name that no certificate is for. `None` ends the handshake.
    pub(super) fallback: Option<Arc<CertifiedKey>>,
    /// For a client that names nobody.
    pub(super) unnamed: Option<Arc<CertifiedKey>>,
    /// For an authority that has a name proved (RFC 8737): it offers `acme-tls/1` and nothing else.
    pub(super) proofs: Arc<Names>,
    pub(super) missed: Option<Missed>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let proves = hello
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(PROVING) && offered.next().is_none());
        match hello.server_name() {
            Some(name) if proves => self.proofs.exact(name).cloned(),
            None if proves => None,
            Some(name) => {
                let found = self.names.find(name);
                if let (None, Some(missed)) = (found, &self.missed) {
                    missed.0(name);
                }
                found.or(self.fallback.as_ref()).cloned()
            }
            None => self.unnamed.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(common: &str, alternatives: &[&str]) -> (String, String) {
        let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).into()).collect();
        let mut params = CertificateParams::new(alternatives).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn certificate(common: &str, alternatives: &[&str]) -> Certificate {
        let (chain, key) = made(common, alternatives);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together")
    }

    #[test]
    fn a_certificate_is_for_its_common_name_and_its_alternatives() {
        let certificate = certificate("CN.test", &["b.test", "*.A.test", "10.0.0.1", "::1"]);
        assert_eq!(
            certificate.names(),
            ["*.a.test", "10.0.0.1", "::1", "b.test", "cn.test"]
        );
        let generated = Certificate::generate(SystemTime::UNIX_EPOCH).expect("one of our own");
        let [host, common] = generated.names() else {
            panic!("two names, not {:?}", generated.names());
        };
        assert_eq!(common, "traefik default cert");
        assert_eq!(host.len(), 32 + 1 + 32 + ".traefik.default".len(), "{host}");
    }

    #[test]
    fn pairs_that_cannot_be_used_say_why() {
        let (chain, key) = made("a", &[]);
        let (_, other) = made("a", &[]);
        let check = |chain: &str, key: &str, why: &str| {
            let error = Certificate::from_pem(chain.as_bytes(), key.as_bytes())
                .expect_err("it cannot be used")
                .to_string();
            assert!(error.contains(why), "{error}");
        };
        check(
            "/nope",
            &key,
            "failed to find any PEM data in certificate input",
        );
        check(
            &key,
            &key,
            "failed to find any PEM data in certificate input",
        );
        check(&chain, "/nope", "failed to find any PEM data in key input");
        check(&chain, &chain, "failed to find any PEM data in key input");
        check(&chain, &other, "keys may not be consistent");
        let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(rubbish, &key, "");
    }

    /// Looks a name up among certificates called as their first name.
    fn check(certificates: &[&[&str]], name: &str, expected: Option<usize>) {
        let certificates: Vec<Certificate> = certificates
            .iter()
            .map(|names| certificate(names[0], names))
            .collect();
        let found = Names::new(certificates.iter()).find(name).map(|key| {
            certificates
                .iter()
                .position(|certificate| Arc::ptr_eq(certificate.key(), key))
                .expect("one of them")
        });
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn the_pattern_with_the_fewest_stars_wins() {
        let all: &[&[&str]] = &[
            &["*.tls.test"],
            &["a.tls.test"],
            &["b.tls.test", "c.tls.test"],
            &["*.*.test"],
            &["a.tls.test", "d.tls.test"],
        ];
        check(all, "A.TLS.test", Some(1));
        check(all, "c.tls.test", Some(2));
        check(all, "d.tls.test", Some(4));
        check(all, "z.tls.test", Some(0));
        check(all, "z.other.test", Some(3));
        check(all, "x.y.tls.test", None);
        check(all, "tls.test", None);
        check(all, "", None);
        check(&[&["*"]], "one", Some(0));
        check(&[&["*"]], "two.labels", None);
    }
}
