//! TLS towards servers: whose certificates are believed, and for which name.
//!
//! Owns the sessions of one core, which are resumed. Never offers HTTP/2.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
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

/// How servers are spoken to over TLS.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    pub fn new(trust: &Trust) -> Self {
        Self::showing(trust, None)
    }

    /// The same, showing a certificate to servers that ask for one.
    pub fn showing(trust: &Trust, own: Option<&Certificate>) -> Self {
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
        let mut config = match own {
            Some(own) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own.key())))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config)).for_core()
    }

    /// A copy with sessions and reference counts of its own: each core has one.
    #[must_use]
    pub fn for_core(&self) -> Self {
        let mut config = (*self.0).clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Self(Arc::new(config))
    }

    /// The same for a library of the control plane that shakes hands itself, and says which versions of HTTP it speaks.
    pub fn for_library(&self) -> ClientConfig {
        let mut config = (*self.0).clone();
        config.alpn_protocols = Vec::new();
        config
    }

    /// The same trust for connections of the control plane, which speak HTTP/1.1.
    pub fn connector(&self) -> TlsConnector {
        let mut config = self.for_library();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
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
    pub fn connect(&self, host: &str) -> Result<Connection, Error> {
        Connection::client(Arc::clone(&self.0), self.name(host)?)
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
