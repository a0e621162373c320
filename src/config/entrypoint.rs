//! Entry points: the addresses we listen on, with their TLS, redirects and trust. Spec static-config 4.
//!
//! Never opens a socket. Read next: `global.rs`.

use super::dynamic::{Auth, Certificate, Redirect, WhiteList};
use super::option::options;

options! {
    /// An address we listen on.
    pub struct EntryPoint {
        place;
        /// `host:port`; no host is every address, IPv6 in brackets.
        "address" address: String,
        /// Compresses answers of 512 bytes and more with gzip, for clients that accept it.
        "compress" compress: bool,
        /// Speaks TLS.
        "tls" tls: Option<Tls>,
        /// Where clients are sent instead.
        "redirect" redirect: Option<Redirect>,
        /// Who may use it.
        "auth" auth: Option<Auth>,
        /// From where it may be used.
        "whiteList" white_list: Option<WhiteList>,
        /// Deprecated: use `whiteList.sourceRange`.
        "whitelistSourceRange" whitelist_source_range: Vec<String>,
        /// Whose PROXY protocol line is believed.
        "proxyProtocol" proxy_protocol: Option<Trust>,
        /// Whose `X-Forwarded-*` header fields are believed. Left out: everybody's.
        "forwardedHeaders" forwarded_headers: Option<Trust>,
    }

    /// Whose word is taken: everybody's, or that of the listed addresses and networks.
    pub struct Trust {
        place;
        /// Everybody's.
        "insecure" insecure: bool,
        /// Addresses and networks; with neither, nobody's.
        "trustedIPs" trusted_ips: Vec<String>,
    }

    /// TLS of an entry point.
    pub struct Tls {
        place;
        /// `VersionTLS10`, `VersionTLS11`, `VersionTLS12` or `VersionTLS13`.
        "minVersion" min_version: String,
        /// Go's names of cipher suites.
        "cipherSuites" cipher_suites: Vec<String>,
        /// Ends handshakes for names that have no certificate.
        "sniStrict" sni_strict: bool,
        /// The certificates.
        "certificates" certificates: Vec<Certificate>,
        /// The one for other names. Left out: the first of `certificates`, or one made at start.
        "defaultCertificate" default_certificate: Option<Certificate>,
        /// Asks clients for certificates.
        "clientCA" client_ca: Option<ClientCa>,
        /// Deprecated: use `clientCA.files`.
        "clientCAFiles" client_ca_files: Vec<String>,
    }

    /// Certificates of clients.
    pub struct ClientCa {
        /// Certificates that clients' must come from: paths or PEM text.
        "files" files: Vec<String>,
        /// Lets clients without a certificate pass.
        "optional" optional: bool,
    }
}
