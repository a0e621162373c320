//! Certificates made for a test, and a client that speaks TLS through a library that is not asked to be lenient.
//!
//! Owns the authority and what it issues. The client checks certificates, names and the announced end of the stream.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::wait::DEADLINE;

/// Who issues the certificates of a test.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM text.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names, called as the first, with an ECDSA key.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.sign(names, &KeyPair::generate().unwrap())
    }

    /// The same, good for the year 1975.
    pub fn issue_expired(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        self.sign_with(names, &key, |params| {
            params.not_before = rcgen::date_time_ymd(1975, 1, 1);
            params.not_after = rcgen::date_time_ymd(1976, 1, 1);
        })
    }

    /// The same with an RSA key.
    pub fn issue_rsa(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.sign(names, &key)
    }

    fn sign(&self, names: &[&str], key: &KeyPair) -> Pair {
        self.sign_with(names, key, |_| ())
    }

    fn sign_with(
        &self,
        names: &[&str],
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let alternatives: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        change(&mut params);
        Pair {
            chain: params.signed_by(key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts this authority.
    pub fn client(&self) -> Settings {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Settings {
            roots,
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            provider: aws_lc_rs::default_provider(),
            own: None,
            protocols: vec![b"http/1.1".to_vec()],
        }
    }
}

impl Pair {
    /// The certificate itself.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }

    /// As the two keys of a certificate in TOML.
    pub fn toml(&self) -> String {
        format!(
            "certFile = '''{}'''\nkeyFile = '''{}'''\n",
            self.chain, self.key
        )
    }
}

/// How a client speaks TLS.
pub struct Settings {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: CryptoProvider,
    own: Option<Pair>,
    protocols: Vec<Vec<u8>>,
}

impl Settings {
    pub fn only(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Offers these protocols instead of HTTP/1.1.
    pub fn speaking(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// Shows this certificate if asked.
    pub fn showing(mut self, own: &Pair) -> Self {
        self.own = Some(own.clone());
        self
    }

    pub fn build(self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots);
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(
                    vec![own.der()],
                    PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = self.protocols;
        Arc::new(config)
    }
}

/// A client with a finished handshake.
pub struct TlsClient {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

/// An answer, read to the end that its length or the stream says.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl TlsClient {
    /// Connects and shakes hands, asking for `name`: a host name, or an address, which is not told the server.
    pub fn connect(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.stream.write_all(request.as_ref())?;
        self.stream.flush()?;
        self.answer()
    }

    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"))
    }

    /// Reads an answer with a length, or one that ends with the stream.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse().unwrap())
        });
        let mut body = Vec::new();
        match length {
            Some(length) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, body })
    }

    /// Everything up to the end, which must be announced.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// The certificate that the server showed.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.stream.conn.peer_certificates().unwrap()[0].clone()
    }
}
