//! `coreway healthcheck`: asks the `/ping` of a running server. Spec api-metrics-logs 4.
//!
//! Owns the words of its outcome. The certificate of an entry point with TLS is not verified: it is our own. Never looks at
//! a store. Read next: `frontend/internal.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ::http::header::HOST;
use ::http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::compile;
use crate::compile::settings::{self, Machine};
use crate::config::Global;

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is said where `/ping` is on no entry point.
pub const NO_ENTRY_POINT: &str = "Error calling healthcheck: missing `ping` entrypoint";

/// Asks. The line to print.
///
/// # Errors
/// The server does not say that it is well: the line to print, with exit code 1.
pub fn run(global: &Global, machine: &Machine) -> Result<String, String> {
    let failed = |why: String| format!("Error calling healthcheck: {why}");
    let Some(ping) = &global.ping else {
        return Err(failed(
            "please enable `ping` to use health check".to_owned(),
        ));
    };
    let Some(written) = global.entry_points.get(&ping.entry_point) else {
        return Err(NO_ENTRY_POINT.to_owned());
    };
    let scheme = if written.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let path = format!("{}/ping", compile::internal::prefix(global));
    let url = format!("{scheme}://{}{path}", written.address);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let asked = async { timeout(TIMEOUT, ask(global, machine, &ping.entry_point, &path)).await };
    let asked = runtime.block_on(asked);
    let status = asked
        .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
        .map_err(|why| failed(format!("Head {url}: {why}")))?;
    match status {
        StatusCode::OK => Ok(format!("OK: {url}")),
        status => Err(format!("Bad healthcheck status: {status}")),
    }
}

async fn ask(
    global: &Global,
    machine: &Machine,
    entry_point: &str,
    path: &str,
) -> Result<StatusCode, String> {
    let mut unverified = global.clone();
    unverified.insecure_skip_verify = true;
    let (settings, _) = settings::settings(&unverified, machine).map_err(|rejections| {
        let lines: Vec<String> = rejections.iter().map(ToString::to_string).collect();
        lines.join("; ")
    })?;
    let found = settings.entry_points.iter();
    let mut found = found.filter(|one| one.name == entry_point);
    let found = found.next().ok_or("the entry point cannot be opened")?;
    let address = reachable(found.address);
    let written = &global.entry_points[entry_point].address;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| format!("dial tcp {written}: connect: {}", plain(&error)))?;
    if found.tls.is_none() {
        return head(stream, address, path).await;
    }
    let name = settings.upstream_tls.name(&address.ip().to_string());
    let name = name.map_err(|error| error.to_string())?;
    let stream = settings
        .upstream_tls
        .connector()
        .connect(name, stream)
        .await;
    head(stream.map_err(|error| error.to_string())?, address, path).await
}

async fn head(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    path: &str,
) -> Result<StatusCode, String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(path)
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    Ok(answer.status())
}

/// Where a server that listens there can be reached from the same machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// As Go says it, without the number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}
