//! Requests to a store that speaks HTTP: which endpoint is asked, for how long, and how much of an answer is read.
//!
//! Owns the connections of one store. Never knows what an answer means, beyond whether there was one.
//! Read next: `consul.rs`, `etcd2.rs`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout_at};

use super::connect::{Dialer, Endpoint};
use super::{Credentials, Error};
use crate::limits::STORE_ANSWER_BYTES_MAX;

/// Time for an ordinary request at one endpoint, its answer included.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to read a whole tree.
pub(super) const TREE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is asked.
pub(super) struct Question {
    pub(super) method: Method,
    /// Path and query, encoded.
    pub(super) target: String,
    pub(super) body: Bytes,
    pub(super) content_type: Option<&'static str>,
    pub(super) timeout: Duration,
}

impl Question {
    pub(super) fn get(target: String) -> Self {
        Self::new(Method::GET, target, Bytes::new())
    }

    pub(super) fn new(method: Method, target: String, body: Bytes) -> Self {
        Self {
            method,
            target,
            body,
            content_type: None,
            timeout: REQUEST_TIMEOUT,
        }
    }

    pub(super) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(super) fn content_type(mut self, kind: &'static str) -> Self {
        self.content_type = Some(kind);
        self
    }
}

/// What was answered, whatever its status.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// A number in a header field.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        number(&self.headers, name)
    }

    /// The first words of the answer, for messages.
    pub(super) fn says(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.trim().chars().take(200).collect();
        format!("{} {text}", self.status.as_u16())
    }
}

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The endpoints of one store.
#[derive(Debug)]
pub(super) struct Http {
    client: Client<Dialer, Full<Bytes>>,
    endpoints: Vec<Uri>,
    /// The one that answered last: it is asked first.
    preferred: AtomicUsize,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Http {
    /// `is_tls` is for endpoints that do not say it themselves.
    pub(super) fn new(dialer: Dialer, endpoints: &[Endpoint], is_tls: bool) -> Result<Self, Error> {
        let endpoints = endpoints
            .iter()
            .map(|endpoint| {
                let scheme = if endpoint.is_tls.unwrap_or(is_tls) {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{endpoint}")
                    .parse()
                    .map_err(|error| Error::Settings(format!("endpoint {endpoint}: {error}")))
            })
            .collect::<Result<Vec<Uri>, _>>()?;
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(dialer),
            endpoints,
            preferred: AtomicUsize::new(0),
            fields: Vec::new(),
        })
    }

    /// Sends a field with every request. It is not shown in any message.
    pub(super) fn with_field(mut self, name: HeaderName, value: &str) -> Result<Self, Error> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| Error::Settings(format!("a value for {name} that no field can have")))?;
        value.set_sensitive(true);
        self.fields.push((name, value));
        Ok(self)
    }

    /// Basic authentication with every request.
    pub(super) fn with_credentials(self, credentials: &Credentials) -> Result<Self, Error> {
        let text = format!("{}:{}", credentials.user, credentials.password);
        self.with_field(AUTHORIZATION, &format!("Basic {}", STANDARD.encode(text)))
    }

    /// Asks the endpoints in turn, the one that answered last first. A question that changes something goes on to the
    /// next one only if it was certainly not sent.
    pub(super) async fn ask(&self, question: &Question) -> Result<Reply, Error> {
        let until = |endpoint| self.finish(endpoint, question);
        self.turn(question, until).await
    }

    /// The same, up to the head: [`Http::body`] reads the rest, or dropping it ends the connection.
    pub(super) async fn ask_head(&self, question: &Question) -> Result<Response<Incoming>, Error> {
        let until = |endpoint| self.begin(endpoint, question);
        self.turn(question, until).await
    }

    async fn turn<'a, T, F>(
        &'a self,
        question: &Question,
        attempt: impl Fn(&'a Uri) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut said = String::new();
        for offset in 0..self.endpoints.len() {
            let index = (first + offset) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            match attempt(endpoint).await {
                Ok(reply) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(failed) => {
                    let separator = if said.is_empty() { "" } else { "; " };
                    write!(said, "{separator}{endpoint} {}", failed.why)
                        .expect("a string takes everything");
                    if failed.was_sent && question.method != Method::GET {
                        break;
                    }
                }
            }
        }
        Err(Error::Unreachable(said))
    }

    async fn begin(
        &self,
        endpoint: &Uri,
        question: &Question,
    ) -> Result<Response<Incoming>, Failed> {
        let deadline = Instant::now() + question.timeout;
        let request = self.request(endpoint, question)?;
        match timeout_at(deadline, self.client.request(request)).await {
            Err(_) => Err(Failed::new(true, no_answer(question))),
            Ok(Err(error)) => Err(Failed::new(!error.is_connect(), causes(&error))),
            Ok(Ok(response)) => Ok(response),
        }
    }

    async fn finish(&self, endpoint: &Uri, question: &Question) -> Result<Reply, Failed> {
        let deadline = Instant::now() + question.timeout;
        let response = self.begin(endpoint, question).await?;
        match timeout_at(deadline, Self::body(response)).await {
            Err(_) => Err(Failed::new(true, no_answer(question))),
            Ok(Err(why)) => Err(Failed::new(true, why)),
            Ok(Ok(reply)) => Ok(reply),
        }
    }

    /// Reads the rest of an answer, up to [`STORE_ANSWER_BYTES_MAX`].
    pub(super) async fn body(response: Response<Incoming>) -> Result<Reply, String> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, STORE_ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| causes(error.as_ref()))?
            .to_bytes();
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    fn request(&self, endpoint: &Uri, question: &Question) -> Result<Request<Full<Bytes>>, Failed> {
        let mut parts = endpoint.clone().into_parts();
        parts.path_and_query = Some(
            question
                .target
                .parse()
                .map_err(|_| Failed::new(false, "a key that no URL can hold".to_owned()))?,
        );
        let uri = Uri::from_parts(parts).map_err(|error| Failed::new(false, error.to_string()))?;
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = uri;
        let fields = request.headers_mut();
        for (name, value) in &self.fields {
            fields.insert(name.clone(), value.clone());
        }
        if let Some(kind) = question.content_type {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        debug_assert!(!fields.contains_key(HOST), "the client writes it");
        Ok(request)
    }
}

/// Why one endpoint did not answer.
struct Failed {
    /// Whether it may have been executed all the same.
    was_sent: bool,
    why: String,
}

impl Failed {
    fn new(was_sent: bool, why: String) -> Self {
        Self { was_sent, why }
    }
}

fn no_answer(question: &Question) -> String {
    format!("did not answer within {:?}", question.timeout)
}

/// An error with what caused it: the outermost alone often says only that something failed.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// A key as part of a path: `/` stays, what is not plain is encoded.
pub(super) fn encoded(key: &str) -> String {
    encode(key, b"-._~/")
}

/// A value as part of a query or of a form.
pub(super) fn encoded_value(value: &str) -> String {
    encode(value, b"-._~")
}

fn encode(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_for_a_path() {
        assert_eq!(encoded("a/b c?d#é%"), "a/b%20c%3Fd%23%C3%A9%25");
        assert_eq!(encoded_value("a/b&c=d+e"), "a%2Fb%26c%3Dd%2Be");
    }
}
