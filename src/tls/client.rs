//! TLS towards servers: whose certificates are believed, and for which name.
//!
//! Owns the sessions of one core, which are resumed, and what is offered by ALPN. Never speaks what was agreed on.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{Authorities, Certificate, Connection, Error, provider};

/// Sessions kept for resumption, one for a server's name.
const SESSIONS_MAX: usize = 256;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those that come from one of these, for the name that was asked for.
    Authorities(Authorities),
    /// Any: whoever is in between can read and change everything.
    Anybody,
}

/// What a server may choose to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    Http1,
    Http2OrHttp1,
}

/// How servers are spoken to over TLS.
#[derive(Clone)]
pub struct Client {
    http1: Arc<ClientConfig>,
    /// The same, and HTTP/2 before it. Sessions are shared: what is spoken is agreed on anew each time.
    http2_or_http1: Arc<ClientConfig>,
}

impl Client {
    pub fn new(trust: &Trust) -> Self {
        Self::showing(trust, &[])
    }

    /// The same, showing a certificate to servers that ask for one: the first of these whose key they can check.
    pub fn showing(trust: &Trust, own: &[Certificate]) -> Self {
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the suites of the default provider are of both versions");
        let builder = match trust {
            Trust::Authorities(authorities) => {
                builder.with_root_certificates(authorities.0.clone())
            }
            Trust::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Credulous::new(&provider))),
        };
        let own: Vec<_> = own.iter().map(|own| Arc::clone(own.key())).collect();
        let mut config = builder.with_client_cert_resolver(Arc::new(Own(own)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::with_sessions(config)
    }

    /// Both offers, with sessions of their own.
    fn with_sessions(mut http1: ClientConfig) -> Self {
        http1.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let mut both = http1.clone();
        both.alpn_protocols.insert(0, b"h2".to_vec());
        Self {
            http1: Arc::new(http1),
            http2_or_http1: Arc::new(both),
        }
    }

    /// A copy with sessions and reference counts of its own: each core has one.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self::with_sessions((*self.http1).clone())
    }

    /// The same for a library of the control plane that shakes hands itself, and says which versions of HTTP it speaks.
    pub fn for_library(&self) -> ClientConfig {
        let mut config = (*self.http1).clone();
        config.alpn_protocols = Vec::new();
        config
    }

    /// The same trust for connections of the control plane, which speak HTTP/1.1.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::new((*self.http1).clone()))
    }

    /// What a connector is to ask for.
    ///
    /// # Errors
    /// `host` is neither a name nor an address.
    pub fn name(&self, host: &str) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(host.to_owned()).map_err(|_| {
            Error(rustls::Error::General(format!(
                "{host:?} is not a name that a certificate can be for"
            )))
        })
    }

    /// The client's end of a new connection to `host`, a name or an address; an address is not told the server.
    ///
    /// # Errors
    /// `host` is neither, or out of randomness.
    pub fn connect(&self, host: &str, offer: Offer) -> Result<Connection, Error> {
        let config = match offer {
            Offer::Http1 => &self.http1,
            Offer::Http2OrHttp1 => &self.http2_or_http1,
        };
        Connection::client(Arc::clone(config), self.name(host)?)
    }
}

/// Believes nobody.
impl Default for Client {
    fn default() -> Self {
        Self::new(&Trust::Authorities(Authorities::default()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// What is shown to servers.
#[derive(Debug)]
struct Own(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    /// The authorities that a server names are hints (RFC 8446 4.2.4): one that wants another certificate says so.
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let is_usable = |own: &&Arc<CertifiedKey>| own.key.choose_scheme(schemes).is_some();
        self.0.iter().find(is_usable).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Believes any certificate, but not that somebody has its key who does not.
#[derive(Debug)]
struct Credulous(WebPkiSupportedAlgorithms);

impl Credulous {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
