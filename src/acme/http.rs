//! How the authority is reached: HTTPS with the library's client, believing the system's certificates or one file.
//!
//! Never believes anybody, whatever `insecureSkipVerify` says: that is about servers. Read next: `mod.rs`.

use std::env;
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HyperClient, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde_json::Value;
use tokio::time::timeout;
use tracing::info;

use super::wall_clock;
use crate::limits::{
    ACME_ANSWER_BYTES_MAX, ACME_AUTHORITY_TIME, ACME_PAUSE_MAX, ACME_SERVICE_TIME,
};
use crate::tls::{self, Authorities, Trust};

/// A file with certificates that are believed instead of the system's (spec acme 1).
const CA_VARIABLE: &str = "LEGO_CA_CERTIFICATES";

/// Asks the authority.
#[derive(Clone)]
pub(super) struct Http {
    client: HyperClient<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    /// Each request to the authority is logged.
    is_logged: bool,
    /// For how many seconds the authority wants to be left alone, as it said last (RFC 8555 6.6).
    pause: Arc<AtomicU64>,
    /// The authority did not answer when it was asked last, or not what it was asked for.
    is_away: Arc<AtomicBool>,
}

impl Http {
    /// # Errors
    /// The file of the variable cannot be used.
    pub(super) fn new(is_logged: bool) -> Result<Self, String> {
        let mut authorities = Authorities::default();
        match env::var(CA_VARIABLE) {
            Ok(path) if !path.is_empty() => {
                let said = |why: String| format!("{CA_VARIABLE}: {path}: {why}");
                let text = fs::read(&path).map_err(|error| said(error.to_string()))?;
                authorities
                    .add(&text)
                    .map_err(|error| said(error.to_string()))?;
            }
            _ => authorities.add_readable(&tls::system_authorities(|path| fs::read(path).ok())),
        }
        let config = tls::Client::new(&Trust::Authorities(authorities)).for_library();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: HyperClient::builder(TokioExecutor::new()).build(connector),
            is_logged,
            pause: Arc::default(),
            is_away: Arc::default(),
        })
    }

    /// For how long the authority wants to be left alone, if it said so since the last call; at most
    /// `ACME_PAUSE_MAX`.
    pub(super) fn take_pause(&self) -> Duration {
        Duration::from_secs(self.pause.swap(0, Ordering::Relaxed)).min(ACME_PAUSE_MAX)
    }

    /// Whether the authority could not be reached when it was asked last, or has too much to do: whatever is asked next meets
    /// the same.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http")
    }
}

impl Http {
    /// Posts JSON to a service that is not the authority, and cares for nothing but its status.
    ///
    /// # Errors
    /// A sentence: it is not reached in time, or refuses.
    pub(super) async fn post(
        &self,
        url: &str,
        authorization: Option<&str>,
        body: &Value,
    ) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{url}: {error}");
        let mut request = Request::post(url).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = BodyWrapper::from(body.to_string().into_bytes());
        let request = request.body(body).map_err(|error| failed(&error))?;
        let answer = timeout(ACME_SERVICE_TIME, self.client.request(request)).await;
        let answer = answer
            .map_err(|_| failed(&format!("no answer within {ACME_SERVICE_TIME:?}")))?
            .map_err(|error| failed(&causes(&error)))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(failed(&format!("it answers {}", answer.status())))
    }
}

/// What a client says, and why: it says little by itself.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

impl HttpClient for Http {
    fn request(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let agent = concat!("coreway/", env!("CARGO_PKG_VERSION"));
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(agent));
        let asked = format!("{} {}", request.method(), request.uri());
        let is_logged = self.is_logged;
        let (pause, is_away) = (Arc::clone(&self.pause), Arc::clone(&self.is_away));
        let answer = answered(self.client.request(request));
        Box::pin(async move {
            let answer = timeout(ACME_AUTHORITY_TIME, answer)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {ACME_AUTHORITY_TIME:?}")));
            if is_logged {
                // The beginning that 1.7 gives these lines.
                match &answer {
                    Ok(answer) => info!("legolog: {asked}: {}", answer.status()),
                    Err(why) => info!("legolog: {asked}: {why}"),
                }
            }
            let failed = |why: String| Error::Other(format!("{asked}: {why}").into());
            is_away.store(true, Ordering::Relaxed);
            let answer = answer.map_err(failed)?;
            let status = answer.status();
            let is_busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            is_away.store(is_busy, Ordering::Relaxed);
            if is_busy {
                let after = answer.headers().get(RETRY_AFTER);
                let after = after.and_then(|after| seconds(after.to_str().ok()?, wall_clock()));
                pause.store(after.unwrap_or(0), Ordering::Relaxed);
            }
            // The library would call the page of a proxy in between, or of another server, bad JSON.
            if !status.is_success() && !is_problem(answer.headers()) {
                return Err(failed(format!("it answers {status}")));
            }
            Ok(BytesResponse::from(answer))
        })
    }
}

/// Whether an answer says what is wrong (RFC 9457). Authorities are not strict about the type.
fn is_problem(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.contains("json"))
}

/// What `Retry-After` says: seconds, or a date (RFC 9110 10.2.3).
fn seconds(after: &str, now: SystemTime) -> Option<u64> {
    after.trim().parse().ok().or_else(|| {
        let until = httpdate::parse_http_date(after.trim()).ok()?;
        // A part of a second counts whole: not before that time.
        let pause = until.duration_since(now).unwrap_or_default();
        Some(pause.as_secs() + u64::from(pause.subsec_nanos() > 0))
    })
}

/// The answer with its whole body.
async fn answered(
    answer: impl Future<Output = Result<Response<Incoming>, ClientError>>,
) -> Result<Response<Full<Bytes>>, String> {
    let (parts, body) = answer.await.map_err(|error| causes(&error))?.into_parts();
    let body = Limited::new(body, ACME_ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (after, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(seconds(after, now), expected, "{after}");
        }
        assert_eq!(
            seconds(
                "Sun, 06 Nov 1994 08:50:37 GMT",
                now + Duration::from_millis(500)
            ),
            Some(60)
        );
    }
}
