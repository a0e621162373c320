//! How the authority is reached: HTTPS with the library's client, believing the system's certificates or one file.
//!
//! Never believes anybody, whatever `insecureSkipVerify` says: that is about servers. Read next: `mod.rs`.

use std::env;
use std::fs;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use crate::limits::ACME_ANSWER_BYTES_MAX;
use crate::tls::{self, Authorities, Trust};

/// A file with certificates that are believed instead of the system's (spec acme 1).
const CA_VARIABLE: &str = "LEGO_CA_CERTIFICATES";

/// Asks the authority.
#[derive(Clone)]
pub(super) struct Http(HyperClient<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Http {
    /// # Errors
    /// The file of the variable cannot be used.
    pub(super) fn new() -> Result<Self, String> {
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
        Ok(Self(
            HyperClient::builder(TokioExecutor::new()).build(connector),
        ))
    }
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
        let answer = self.0.request(request);
        Box::pin(async move {
            let (parts, body) = answer
                .await
                .map_err(|error| Error::Other(Box::new(error)))?
                .into_parts();
            let body = http_body_util::Limited::new(body, ACME_ANSWER_BYTES_MAX);
            Ok(BytesResponse::from(Response::from_parts(parts, body)))
        })
    }
}
