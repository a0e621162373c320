//! Entry points: the addresses we listen on, with their TLS, redirects and trust. Spec static-config 4.
//!
//! Never opens a socket. Read next: `global.rs`.

use super::dynamic::{Auth, Certificate, Redirect, WhiteList};
use super::units::Place;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntryPoint {
    pub place: Place,
    pub address: String,
    pub compress: bool,
    pub tls: Option<Tls>,
    pub redirect: Option<Redirect>,
    pub auth: Option<Auth>,
    pub white_list: Option<WhiteList>,
    pub whitelist_source_range: Vec<String>,
    pub proxy_protocol: Option<Trust>,
    /// `None` means that everybody is trusted (spec frontends 10).
    pub forwarded_headers: Option<Trust>,
}

/// Whose word is taken: everybody's, or that of the listed addresses and networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trust {
    pub place: Place,
    pub insecure: bool,
    pub trusted_ips: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub place: Place,
    pub min_version: String,
    pub cipher_suites: Vec<String>,
    pub sni_strict: bool,
    pub certificates: Vec<Certificate>,
    pub default_certificate: Option<Certificate>,
    pub client_ca: Option<ClientCa>,
    pub client_ca_files: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientCa {
    pub files: Vec<String>,
    pub optional: bool,
}
