//! TLS over bytes, and the certificate that answers a name. The one place that knows rustls.
//!
//! Owns what an entry point offers ([`Server`]), how servers are spoken to ([`Client`]), and one connection of either
//! ([`Connection`]): bytes in, bytes out.
//! Never does I/O, reads no file, and knows no HTTP. Offers TLS 1.2 and 1.3, nothing older.
//! Read next: `connection.rs` (a handshake and what follows), `certificates.rs` (which certificate a client gets).

mod certificates;
mod client;
mod connection;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite};

pub use certificates::{Certificate, CertificateError, Missed, lifetime};
pub use client::{Client, Offer, Trust};
pub use connection::{Connection, Error};

use certificates::{Names, PROVING, Resolver};

/// The oldest version that is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

/// Whose certificates a client may or must show.
#[derive(Clone, Debug, Default)]
pub enum ClientCertificates {
    /// None are asked for.
    #[default]
    Ignored,
    /// A certificate that is shown must come from one of these.
    Optional(Authorities),
    /// Without a certificate from one of these there is no connection.
    Required(Authorities),
}

/// Certificates that others must come from.
#[derive(Clone, Debug)]
pub struct Authorities(RootCertStore);

impl Default for Authorities {
    fn default() -> Self {
        Self(RootCertStore::empty())
    }
}

impl Authorities {
    /// Adds those certificates of a PEM text that can be read: the list of a system may hold odd ones.
    pub fn add_readable(&mut self, pem: &[u8]) {
        let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
        self.0.add_parsable_certificates(certificates);
    }

    /// Adds every certificate in a PEM text.
    ///
    /// # Errors
    /// There is none in it, or one cannot be read.
    pub fn add(&mut self, pem: &[u8]) -> Result<(), CertificateError> {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| CertificateError::NoCertificate)?;
            self.0
                .add(certificate)
                .map_err(|error| CertificateError::Unusable(error.to_string()))?;
            found = true;
        }
        if found {
            Ok(())
        } else {
            Err(CertificateError::NoCertificate)
        }
    }
}

/// Where systems keep the certificates of the authorities they believe; the first that is there counts. As Go looks.
pub const SYSTEM_AUTHORITIES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// PEM text of the authorities that the system believes, which `read` finds. Empty if there are none.
pub fn system_authorities(read: impl FnMut(&str) -> Option<Vec<u8>>) -> Vec<u8> {
    SYSTEM_AUTHORITIES
        .into_iter()
        .find_map(read)
        .unwrap_or_default()
}

/// A cipher suite that can be offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suite(SupportedCipherSuite);

impl Suite {
    /// The suite of this name, in the spelling of Go; `None` for what is too weak to be offered.
    pub fn named(name: &str) -> Option<Self> {
        use aws_lc_rs::cipher_suite as suite;
        Some(Self(match name {
            "TLS_AES_128_GCM_SHA256" => suite::TLS13_AES_128_GCM_SHA256,
            "TLS_AES_256_GCM_SHA384" => suite::TLS13_AES_256_GCM_SHA384,
            "TLS_CHACHA20_POLY1305_SHA256" => suite::TLS13_CHACHA20_POLY1305_SHA256,
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
                suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            }
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
                suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            }
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"
            | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
                suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            }
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
            | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
                suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            }
            _ => return None,
        }))
    }

    fn is_tls13(self) -> bool {
        self.0.version().version == ProtocolVersion::TLSv1_3
    }
}

/// In the order in which they are preferred. SHA-384 has no hardware path: it costs 25 µs more for each handshake.
const SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// What an entry point asks of its clients.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub min_version: MinVersion,
    /// The suites to offer, the preferred ones first; empty for all. If none of TLS 1.3 is among them, all of TLS 1.3
    /// are offered, as Go does, which has no say in them.
    pub suites: Vec<Suite>,
    /// A name without a certificate of its own ends the handshake.
    pub sni_strict: bool,
    pub client_certificates: ClientCertificates,
}

/// Why there is no TLS with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsError(String);

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OptionsError {}

/// TLS as one entry point speaks it: its options, and the certificates of one generation.
///
/// Connections begun with it keep it; session tickets outlive it and are good on every core, for this entry point only
/// (a ticket of one that asks for no certificate must not open one that does).
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    /// For clients that name nobody: by the address they have connected to, if a certificate is for that address.
    by_address: Vec<(IpAddr, Arc<ServerConfig>)>,
    fixed: Arc<[Certificate]>,
    default: Certificate,
    sni_strict: bool,
}

impl Server {
    /// TLS with these certificates, of which the first for a name wins. `default` is for every other name.
    ///
    /// # Errors
    /// The options contradict each other.
    pub fn new(
        options: &Options,
        fixed: Vec<Certificate>,
        default: Certificate,
    ) -> Result<Self, OptionsError> {
        let failed = |error: &dyn fmt::Display| OptionsError(error.to_string());
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = suites(&options.suites);
        let provider = Arc::new(provider);
        let versions: &[_] = match options.min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| failed(&error))?;
        let verifier = |authorities: &Authorities| {
            WebPkiClientVerifier::builder_with_provider(
                Arc::new(authorities.0.clone()),
                Arc::clone(&provider),
            )
        };
        let builder = match &options.client_certificates {
            ClientCertificates::Ignored => builder.with_no_client_auth(),
            ClientCertificates::Optional(authorities) => builder.with_client_cert_verifier(
                verifier(authorities)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| failed(&error))?,
            ),
            ClientCertificates::Required(authorities) => builder.with_client_cert_verifier(
                verifier(authorities)
                    .build()
                    .map_err(|error| failed(&error))?,
            ),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver::default()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        config.ticketer = ticketer().map_err(|error| failed(&error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        let bare = Self {
            config: Arc::new(config),
            by_address: Vec::new(),
            fixed: fixed.into(),
            default,
            sni_strict: options.sni_strict,
        };
        Ok(bare.with(&[], &[], None))
    }

    /// What the fixed certificates are for.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.fixed.iter().flat_map(Certificate::names)
    }

    /// The same with other certificates beside the fixed ones, which win where both are for the same name; and with those
    /// that prove names to an authority. `missed` is told of names without a certificate.
    #[must_use]
    pub fn with(
        &self,
        dynamic: &[Certificate],
        proofs: &[Certificate],
        missed: Option<&Missed>,
    ) -> Self {
        let names = Arc::new(Names::new(self.fixed.iter().chain(dynamic)));
        let proofs = Arc::new(Names::new(proofs.iter()));
        let fallback = (!self.sni_strict).then(|| Arc::clone(self.default.key()));
        let config = |unnamed| {
            let mut config = (*self.config).clone();
            config.cert_resolver = Arc::new(Resolver {
                names: Arc::clone(&names),
                fallback: fallback.clone(),
                unnamed,
                proofs: Arc::clone(&proofs),
                missed: missed.cloned(),
            });
            config.alpn_protocols.retain(|protocol| protocol != PROVING);
            if !proofs.is_empty() {
                config.alpn_protocols.push(PROVING.to_vec());
            }
            Arc::new(config)
        };
        let by_address = names
            .addresses()
            .map(|(address, key)| (address, config(Some(Arc::clone(key)))))
            .collect();
        Self {
            config: config(fallback.clone()),
            by_address,
            fixed: Arc::clone(&self.fixed),
            default: self.default.clone(),
            sni_strict: self.sni_strict,
        }
    }

    /// A copy that shares no reference count with this one: each core has its own.
    #[must_use]
    pub fn for_core(&self) -> Self {
        let own = |config: &Arc<ServerConfig>| Arc::new((**config).clone());
        Self {
            config: own(&self.config),
            by_address: self
                .by_address
                .iter()
                .map(|(address, config)| (*address, own(config)))
                .collect(),
            ..self.clone()
        }
    }

    /// The server's end of a new connection. `local` is asked for the address it came in on, if that matters.
    ///
    /// # Errors
    /// Out of randomness.
    pub fn accept(&self, local: impl FnOnce() -> Option<IpAddr>) -> Result<Connection, Error> {
        let config = match self.by_address.as_slice() {
            [] => &self.config,
            known => {
                let local = local();
                known
                    .iter()
                    .find(|(address, _)| Some(*address) == local)
                    .map_or(&self.config, |(_, config)| config)
            }
        };
        Connection::server(Arc::clone(config))
    }
}

fn suites(wanted: &[Suite]) -> Vec<SupportedCipherSuite> {
    let all = SUITES.iter().filter_map(|name| Suite::named(name));
    if wanted.is_empty() {
        return all.map(|suite| suite.0).collect();
    }
    let unsaid = !wanted.iter().any(|suite| suite.is_tls13());
    let mut offered: Vec<SupportedCipherSuite> = Vec::new();
    for suite in all
        .filter(|suite| unsaid && suite.is_tls13())
        .chain(wanted.iter().copied())
    {
        if !offered.contains(&suite.0) {
            offered.push(suite.0);
        }
    }
    offered
}

/// Seals session tickets with a key that changes every six hours and is accepted for six more. The one thing here that
/// the cores share: a client that comes back on another core resumes its session. Looked at once in a handshake.
fn ticketer() -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
    aws_lc_rs::Ticketer::new()
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &[&str], offered: &[&str]) {
        let wanted: Vec<Suite> = wanted
            .iter()
            .map(|name| Suite::named(name).expect("one that can be offered"))
            .collect();
        let names: Vec<String> = suites(&wanted)
            .iter()
            .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"))
            .collect();
        assert_eq!(names, offered);
    }

    #[test]
    fn suites_are_offered_in_the_order_that_was_asked_for() {
        check(&[], &SUITES);
        check(
            &[
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            ],
            &[
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            ],
        );
        check(
            &[
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ],
            &[
                "TLS_AES_128_GCM_SHA256",
                "TLS_AES_256_GCM_SHA384",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ],
        );
    }

    #[test]
    fn what_is_weak_is_not_offered() {
        for name in [
            "TLS_RSA_WITH_RC4_128_SHA",
            "TLS_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            "TLS_FALLBACK_SCSV",
            "",
        ] {
            assert_eq!(Suite::named(name), None, "{name}");
        }
    }
}
