//! One health check: a GET on a connection of its own, redirects followed, and what its answer means.
//!
//! Owns the connection for as long as the check lasts; dropping the future closes it. Reads the head of an answer and
//! never its body. Never decides what follows for the server.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use ::http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use ::http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::url;
use crate::compile::health::Question;
use crate::limits::{HEALTH_CHECK_REDIRECTS_MAX, HEALTH_CHECK_TIMEOUT};
use crate::settings::Settings;

/// Why a server does not count as healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unhealthy {
    /// Its answer has this status.
    Status(u16),
    /// There was no answer: a sentence.
    Failed(String),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "received error status code: {status}"),
            Self::Failed(why) => write!(f, "HTTP request failed: {why}"),
        }
    }
}

/// Asks, for at most [`HEALTH_CHECK_TIMEOUT`] with all redirects.
///
/// # Errors
/// The last answer is none of 200 to 399, or there was none.
pub(super) async fn ask(
    question: &Question,
    addresses: &[IpAddr],
    settings: &Settings,
) -> Result<(), Unhealthy> {
    let mut asked = question.server.clone();
    timeout(
        HEALTH_CHECK_TIMEOUT,
        follow(question, addresses, settings, &mut asked),
    )
    .await
    .unwrap_or_else(|_| Err(format!("no answer within {HEALTH_CHECK_TIMEOUT:?}")))
    .map_err(|why| Unhealthy::Failed(format!("Get {asked}: {why}")))
    .and_then(|status| match status {
        200..=399 => Ok(()),
        _ => Err(Unhealthy::Status(status)),
    })
}

/// The status of the last answer. Leaves in `asked` what was asked for last.
async fn follow(
    question: &Question,
    addresses: &[IpAddr],
    settings: &Settings,
    asked: &mut String,
) -> Result<u16, String> {
    let mut url = first(question)?;
    // The addresses that are known are the server's own, whatever its path refers to.
    let server = url::resolve(&question.server, "")?;
    let mut host = question.host.clone();
    for _ in 0..=HEALTH_CHECK_REDIRECTS_MAX {
        *asked = url.to_string();
        let known = if url.host() == server.host() {
            addresses
        } else {
            &[]
        };
        let answer = get(&url, host.as_deref(), &question.fields, known, settings).await?;
        let status = answer.status().as_u16();
        let location = answer
            .headers()
            .get(LOCATION)
            .filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308));
        let Some(location) = location else {
            return Ok(status);
        };
        let location = location
            .to_str()
            .map_err(|_| "a redirect to what is no URL".to_owned())?;
        let next = url::resolve(&url.to_string(), location)?;
        // The name that was asked for goes along as long as the server stays the same.
        if next.authority() != url.authority() {
            host = None;
        }
        url = next;
    }
    Err(format!(
        "stopped after {HEALTH_CHECK_REDIRECTS_MAX} redirects"
    ))
}

/// Where the first request goes.
fn first(question: &Question) -> Result<Uri, String> {
    let url = url::resolve(&question.server, &question.path)?;
    let mut parts = url.into_parts();
    if let Some(scheme) = &question.scheme {
        parts.scheme = Some(
            scheme
                .parse()
                .map_err(|_| format!("unsupported protocol scheme \"{scheme}\""))?,
        );
    }
    if let (Some(port), Some(authority)) = (question.port, &parts.authority) {
        let authority = format!("{}:{port}", authority.host());
        parts.authority = authority.parse().ok();
    }
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

async fn get(
    url: &Uri,
    host: Option<&str>,
    fields: &[(String, String)],
    addresses: &[IpAddr],
    settings: &Settings,
) -> Result<Response<Incoming>, String> {
    let name = url.host().unwrap_or_default();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let scheme = url.scheme_str().unwrap_or_default();
    let port = url
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    match scheme {
        "http" => {
            let stream = connect(bare, port, addresses).await?;
            http1(stream, request(url, host, fields)?).await
        }
        "https" => {
            let connector = settings.upstream_tls.connector();
            let name = settings.upstream_tls.name(bare).map_err(text)?;
            let stream = connect(bare, port, addresses).await?;
            let stream = connector.connect(name, stream).await.map_err(text)?;
            http1(stream, request(url, host, fields)?).await
        }
        "h2c" => {
            let stream = connect(bare, port, addresses).await?;
            http2(stream, request(url, host, fields)?).await
        }
        _ => Err(format!("unsupported protocol scheme \"{scheme}\"")),
    }
}

/// The text of an error without its kind.
fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

async fn connect(host: &str, port: u16, addresses: &[IpAddr]) -> Result<TcpStream, String> {
    let known: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) if addresses.is_empty() => lookup_host((host, port))
            .await
            .map_err(|error| format!("lookup {host}: {error}"))?
            .collect(),
        Err(_) => addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect(),
    };
    let mut failed = format!("lookup {host}: no such host");
    for address in known {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = format!("dial tcp {address}: {}", plain(&error)),
        }
    }
    Err(failed)
}

/// What the system says, without the number of the error.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

fn request(
    url: &Uri,
    host: Option<&str>,
    fields: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let host = match host {
        Some(host) => host,
        None => url.authority().map_or("", |authority| authority.as_str()),
    };
    let mut request = Request::get(url)
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let head = request.headers_mut();
    head.insert(HOST, HeaderValue::from_str(host).map_err(text)?);
    head.insert(USER_AGENT, HeaderValue::from_static("Coreway"));
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(text)?;
        // The name of the host has an option of its own, and framing is ours.
        if !matches!(
            name.as_str(),
            "host" | "connection" | "content-length" | "transfer-encoding"
        ) {
            head.insert(name, HeaderValue::from_str(value).map_err(text)?);
        }
    }
    Ok(request)
}

async fn http1<S>(
    stream: S,
    mut request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Behind the name of the server, only the path is asked for.
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        answered = &mut answer => answered,
        // A connection that has ended has nothing more to say than what has arrived.
        _ = &mut connection => answer.await,
    };
    answered.map_err(broken)
}

async fn http2<S>(
    stream: S,
    mut request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = request.headers_mut().remove(HOST).ok_or("no host")?;
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(::http::uri::Scheme::HTTP);
    parts.authority = host.to_str().ok().and_then(|host| host.parse().ok());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        answered = &mut answer => answered,
        _ = &mut connection => answer.await,
    };
    answered.map_err(broken)
}

/// What a connection broke by, down to the first cause.
fn broken(error: hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => plain(error),
        None => cause.to_string(),
    }
}
