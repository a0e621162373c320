//! A connection to one endpoint: TCP or a Unix socket, with TLS where it was asked for.
//!
//! Owns the TLS configuration of one store and the names of endpoints. Never speaks a store's protocol. Spec kv-stores 1.1.
//! Read next: `http.rs` (Consul, etcd v2), `etcd3.rs`, `zookeeper/`.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;

use super::{Error, Kind, Tls};
use crate::tls::{self, Authorities, Certificate, Client, Trust};

/// Time for a connection, the handshake of TLS included. An endpoint that takes longer is given up for the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that is gone without a word is noticed after about half a minute.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Both ends of a byte stream, whatever carries it.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(super) type Stream = Box<dyn Io>;

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Where one endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: as the settings say.
    pub(super) is_tls: Option<bool>,
}

impl Endpoint {
    /// `host:port`, `http://host:port` or `https://host:port`. Without a port it is the one the store usually has.
    pub(super) fn parse(kind: Kind, written: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Settings(format!("{kind}: endpoint {written:?}: {why}"));
        let (is_tls, rest) = match written.split_once("://") {
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some((scheme, _)) => {
                return Err(wrong(&format!("Unknown protocol scheme: {scheme}")));
            }
            None => (None, written),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.contains(']') => {
                let port = port.parse().map_err(|_| wrong("the port is no number"))?;
                (host, port)
            }
            _ => (rest, default_port(kind, is_tls)),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            return Err(wrong("expected host:port"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            is_tls,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn default_port(kind: Kind, is_tls: Option<bool>) -> u16 {
    match (kind, is_tls) {
        (_, Some(false)) => 80,
        (_, Some(true)) => 443,
        (Kind::Consul, None) => 8500,
        (Kind::ZooKeeper, None) => 2181,
        (_, None) => 2379,
    }
}

/// TLS as a store is spoken to.
#[derive(Clone)]
pub(super) struct TlsSettings {
    config: Arc<ClientConfig>,
    /// The name that certificates must be for, in place of the endpoint's.
    name: Option<String>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSettings")
    }
}

impl TlsSettings {
    /// Reads the files that `tls` names. `protocol` is what is negotiated inside, if anything.
    ///
    /// # Errors
    /// `Error::Settings`, in the words of Traefik 1.7 where it had some.
    pub(super) fn new(
        tls: &Tls,
        name: Option<String>,
        protocol: Option<&str>,
    ) -> Result<Self, Error> {
        let trust = match tls.trusts_anybody {
            true => Trust::Anybody,
            false => Trust::Authorities(authorities(tls.authorities.as_deref())?),
        };
        let own = tls.own.as_ref().map(|(chain, key)| own(chain, key));
        let own = own.transpose()?;
        let mut config = Client::showing(&trust, own.as_slice()).for_library();
        config.alpn_protocols = protocol
            .map(|protocol| protocol.as_bytes().to_vec())
            .into_iter()
            .collect();
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// The text of a file, if there is one of that name; otherwise what was written is the text.
fn text(written: &str) -> Result<(String, bool), Error> {
    // A name longer than a path can be is text, and asking for it would be an error of its own.
    if written.contains('\n') || !Path::new(written).is_file() {
        return Ok((written.to_owned(), false));
    }
    let text = std::fs::read_to_string(written)
        .map_err(|error| Error::Settings(format!("{written}: {error}")))?;
    Ok((text, true))
}

fn authorities(written: Option<&str>) -> Result<Authorities, Error> {
    let mut authorities = Authorities::default();
    let Some(written) = written else {
        let named = std::env::var("SSL_CERT_FILE").ok();
        let found = named.and_then(|path| std::fs::read(path).ok());
        let found =
            found.unwrap_or_else(|| tls::system_authorities(|path| std::fs::read(path).ok()));
        authorities.add_readable(&found);
        return Ok(authorities);
    };
    let (pem, _) = text(written)?;
    authorities.add(pem.as_bytes()).map_err(|error| {
        Error::Settings(format!(
            "failed to parse CA, which is a file or PEM with a certificate: {error}"
        ))
    })?;
    Ok(authorities)
}

fn own(chain: &str, key: &str) -> Result<Certificate, Error> {
    if chain.is_empty() || key.is_empty() {
        return Err(Error::Settings(
            "TLS Certificate or Key file must be set when TLS configuration is created: one of them is missing"
                .to_owned(),
        ));
    }
    let ((chain, chain_is_file), (key, key_is_file)) = (text(chain)?, text(key)?);
    match (chain_is_file, key_is_file) {
        (true, false) => {
            return Err(Error::Settings(
                "tls cert is a file, but tls key is not".to_owned(),
            ));
        }
        (false, true) => {
            return Err(Error::Settings(
                "TLS key is a file, but tls cert is not".to_owned(),
            ));
        }
        _ => {}
    }
    Certificate::from_pem(chain.as_bytes(), key.as_bytes())
        .map_err(|error| Error::Settings(format!("failed to load TLS keypair: {error}")))
}

/// Makes connections, for `hyper`, `tonic` and ourselves.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    tls: Option<TlsSettings>,
    /// A Unix socket that is spoken to, whatever host is asked for.
    socket: Option<PathBuf>,
}

impl Dialer {
    pub(super) fn new(tls: Option<TlsSettings>) -> Self {
        Self { tls, socket: None }
    }

    pub(super) fn unix(path: PathBuf) -> Self {
        Self {
            tls: None,
            socket: Some(path),
        }
    }

    /// # Errors
    /// As the kernel or TLS says it; `TimedOut` after [`CONNECT_TIMEOUT`].
    pub(super) async fn dial(&self, host: &str, port: u16, is_tls: bool) -> io::Result<Stream> {
        let connecting = async {
            if let Some(path) = &self.socket {
                return Ok(Box::new(UnixStream::connect(path).await?) as Stream);
            }
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let probes = socket2::TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE)
                .with_retries(2);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&probes)?;
            let Some(tls) = self.tls.as_ref().filter(|_| is_tls) else {
                return Ok(Box::new(stream) as Stream);
            };
            let name = tls.name.clone().unwrap_or_else(|| host.to_owned());
            let name = ServerName::try_from(name)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let stream = TlsConnector::from(Arc::clone(&tls.config))
                .connect(name, stream)
                .await?;
            Ok(Box::new(stream) as Stream)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection within {CONNECT_TIMEOUT:?}"),
                ))
            })
    }
}

impl Service<http::Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let is_tls = uri.scheme_str() == Some("https");
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
            dialer.dial(host, port, is_tls).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expected: Result<(&str, u16, Option<bool>), &str>) {
        let parsed = Endpoint::parse(Kind::Consul, written);
        match expected {
            Ok((host, port, is_tls)) => {
                let expected = Endpoint {
                    host: host.to_owned(),
                    port,
                    is_tls,
                };
                assert_eq!(parsed, Ok(expected));
            }
            Err(part) => {
                let error = parsed.unwrap_err().to_string();
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn endpoints_are_hosts_or_urls() {
        check("127.0.0.1:8500", Ok(("127.0.0.1", 8500, None)));
        check("consul", Ok(("consul", 8500, None)));
        check("https://c.test:8501/", Ok(("c.test", 8501, Some(true))));
        check("http://c.test", Ok(("c.test", 80, Some(false))));
        check("[::1]:8500", Ok(("::1", 8500, None)));
        check("[::1]", Ok(("::1", 8500, None)));
        check("ftp://x", Err("Unknown protocol scheme: ftp"));
        check("a:port", Err("no number"));
        check("", Err("expected host:port"));
        check("http://http://x:1", Err("expected host:port"));
    }

    #[track_caller]
    fn check_tls(tls: Tls, part: &str) {
        let error = TlsSettings::new(&tls, None, None).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn tls_that_cannot_work_says_why() {
        let own = |cert: &str, key: &str| Tls {
            own: Some((cert.to_owned(), key.to_owned())),
            trusts_anybody: true,
            ..Tls::default()
        };
        let authorities = |ca: &str| Tls {
            authorities: Some(ca.to_owned()),
            ..Tls::default()
        };
        check_tls(authorities("no such file"), "failed to parse CA");
        check_tls(own("", "key"), "must be set");
        check_tls(
            own("Cargo.toml", "text"),
            "tls cert is a file, but tls key is not",
        );
        check_tls(
            own("text", "Cargo.toml"),
            "TLS key is a file, but tls cert is not",
        );
        check_tls(own("text", "text"), "failed to load TLS keypair");
    }
}
