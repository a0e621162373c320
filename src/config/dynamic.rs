//! Dynamic configuration: frontends, backends, certificates, as one provider wrote them.
//!
//! Owns the names and types of spec frontends 1 to 9, backends 1 and file-provider 2. Text that needs more than a type
//! (rules, CIDRs, ranges) stays text here and is parsed by `compile`. Never holds a default of another layer: an
//! option that was not written is `None` or empty.
//! Read next: `compile/mod.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::units::Place;

/// What one provider says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic {
    pub backends: BTreeMap<String, Backend>,
    pub frontends: BTreeMap<String, Frontend>,
    pub tls: Vec<TlsEntry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backend {
    pub place: Place,
    pub servers: BTreeMap<String, Server>,
    pub load_balancer: Option<LoadBalancer>,
    pub circuit_breaker: Option<CircuitBreaker>,
    pub max_conn: Option<MaxConn>,
    pub health_check: Option<HealthCheck>,
    pub buffering: Option<Buffering>,
    pub response_forwarding: Option<ResponseForwarding>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    pub place: Place,
    pub url: String,
    /// `None` means omitted, which is 1; an explicit 0 depends on `allowMinWeightZero`.
    pub weight: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    pub place: Place,
    pub method: String,
    pub sticky: bool,
    pub stickiness: Option<Stickiness>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stickiness {
    pub cookie_name: String,
    pub secure: bool,
    pub http_only: bool,
    pub same_site: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CircuitBreaker {
    pub place: Place,
    pub expression: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaxConn {
    pub place: Place,
    pub amount: i64,
    pub extractor_func: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthCheck {
    pub place: Place,
    pub path: String,
    pub interval: String,
    pub port: i64,
    pub scheme: String,
    pub hostname: String,
    pub headers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buffering {
    pub place: Place,
    pub max_request_body_bytes: i64,
    pub mem_request_body_bytes: i64,
    pub max_response_body_bytes: i64,
    pub mem_response_body_bytes: i64,
    pub retry_expression: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponseForwarding {
    pub place: Place,
    pub flush_interval: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frontend {
    pub place: Place,
    pub backend: String,
    pub entry_points: Vec<String>,
    pub routes: BTreeMap<String, Route>,
    pub pass_host_header: bool,
    pub pass_tls_cert: bool,
    pub pass_tls_client_cert: Option<PassTlsClientCert>,
    pub priority: i64,
    pub basic_auth: Vec<String>,
    pub auth: Option<Auth>,
    pub whitelist_source_range: Vec<String>,
    pub white_list: Option<WhiteList>,
    pub headers: Option<Headers>,
    pub errors: BTreeMap<String, ErrorPage>,
    pub ratelimit: Option<RateLimit>,
    pub redirect: Option<Redirect>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub place: Place,
    pub rule: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassTlsClientCert {
    pub place: Place,
    pub pem: bool,
    pub infos: Option<TlsClientCertInfos>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsClientCertInfos {
    pub not_before: bool,
    pub not_after: bool,
    pub sans: bool,
    pub subject: Option<DistinguishedName>,
    pub issuer: Option<DistinguishedName>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DistinguishedName {
    pub country: bool,
    pub province: bool,
    pub locality: bool,
    pub organization: bool,
    pub common_name: bool,
    pub serial_number: bool,
    pub domain_component: bool,
}

/// The same section on frontends and entry points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Auth {
    pub place: Place,
    pub basic: Option<AuthUsers>,
    pub digest: Option<AuthUsers>,
    pub forward: Option<AuthForward>,
    pub header_field: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthUsers {
    pub users: Vec<String>,
    pub users_file: String,
    pub remove_header: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthForward {
    pub address: String,
    pub trust_forward_header: bool,
    pub auth_response_headers: Vec<String>,
    pub tls: Option<ClientTls>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTls {
    pub ca: String,
    pub ca_optional: bool,
    pub cert: String,
    pub key: String,
    pub insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhiteList {
    pub place: Place,
    pub source_range: Vec<String>,
    pub use_x_forwarded_for: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers {
    pub place: Place,
    pub custom_request_headers: BTreeMap<String, String>,
    pub custom_response_headers: BTreeMap<String, String>,
    pub allowed_hosts: Vec<String>,
    pub hosts_proxy_headers: Vec<String>,
    pub ssl_redirect: bool,
    pub ssl_temporary_redirect: bool,
    pub ssl_host: String,
    pub ssl_force_host: bool,
    pub ssl_proxy_headers: BTreeMap<String, String>,
    pub sts_seconds: i64,
    pub sts_include_subdomains: bool,
    pub sts_preload: bool,
    pub force_sts_header: bool,
    pub frame_deny: bool,
    pub custom_frame_options_value: String,
    pub content_type_nosniff: bool,
    pub browser_xss_filter: bool,
    pub custom_browser_xss_value: String,
    pub content_security_policy: String,
    pub public_key: String,
    pub referrer_policy: String,
    pub is_development: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorPage {
    pub place: Place,
    pub status: Vec<String>,
    pub backend: String,
    pub query: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RateLimit {
    pub place: Place,
    pub extractor_func: String,
    pub rate_set: BTreeMap<String, Rate>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    pub period: Duration,
    pub average: i64,
    pub burst: i64,
}

/// The same section on frontends and entry points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Redirect {
    pub place: Place,
    pub entry_point: String,
    pub regex: String,
    pub replacement: String,
    pub permanent: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsEntry {
    pub place: Place,
    pub entry_points: Vec<String>,
    pub certificate: Certificate,
}

/// A certificate and its key: each a path or inline PEM.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Certificate {
    pub cert_file: String,
    pub key_file: String,
}
