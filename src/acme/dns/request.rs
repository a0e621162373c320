//! Records made by a service of the operator's, asked over HTTP: `httpreq`.
//!
//! Source: spec acme 1.1, and the documentation of the provider of that name in lego. Read next: `update.rs`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use serde_json::json;

use super::super::http::Http;
use super::{Environment, Record};

#[derive(Debug)]
pub(super) struct Service {
    http: Http,
    /// Without a `/` at the end.
    endpoint: String,
    /// The value of `Authorization`.
    authorization: Option<Secret>,
    /// It is given the token and the key authorization, and makes the record of them by itself.
    is_raw: bool,
}

struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

impl Service {
    pub(super) fn new(http: Http, environment: &Environment<'_>) -> Result<Self, String> {
        let endpoint = environment.needed("HTTPREQ_ENDPOINT", "httpreq")?;
        let is_url = endpoint.parse::<Uri>().is_ok_and(|uri| {
            uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        // It is in every message about the service.
        if endpoint.contains('@') {
            return Err(
                "HTTPREQ_ENDPOINT has a user in it: that is for HTTPREQ_USERNAME and HTTPREQ_PASSWORD"
                    .to_owned(),
            );
        }
        if !is_url {
            return Err(format!("HTTPREQ_ENDPOINT is no URL: {endpoint:?}"));
        }
        let mode = environment.value("HTTPREQ_MODE")?.unwrap_or_default();
        let user = environment.value("HTTPREQ_USERNAME")?;
        let password = environment.value("HTTPREQ_PASSWORD")?;
        let authorization = match (user, password) {
            (Some(user), Some(password)) => {
                let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
                Some(Secret(format!("Basic {pair}")))
            }
            _ => None,
        };
        Ok(Self {
            http,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            authorization,
            is_raw: mode.eq_ignore_ascii_case("RAW"),
        })
    }

    /// `action` is `present` or `cleanup`.
    pub(super) async fn tell(&self, action: &str, record: &Record) -> Result<(), String> {
        let body = if self.is_raw {
            json!({
                "domain": record.domain,
                "token": record.token,
                "keyAuth": record.key_authorization,
            })
        } else {
            json!({"fqdn": record.name(), "value": record.value})
        };
        let url = format!("{}/{action}", self.endpoint);
        let authorization = self.authorization.as_ref().map(|secret| &*secret.0);
        self.http.post(&url, authorization, &body).await
    }
}
