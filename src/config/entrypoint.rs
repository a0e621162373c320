//! Entry points: the addresses we listen on, with their TLS, redirects and trust. Spec static-config 4.
//!
//! Never opens a socket. Read next: `global.rs`.

use super::dynamic::{Auth, Certificate, Redirect, WhiteList};
use super::option::options;

options! {
    /// An address we listen on.
    pub struct EntryPoint {
        place;
        /// `host:port` to listen on; no host is every address, IPv6 in brackets. One that cannot be had ends the start.
        "address" address: String,
        /// Compresses answers of 512 bytes and more with gzip, for clients that accept it.
        "compress" compress: bool,
        /// Speaks TLS, and HTTP/2 to clients that want it.
        "tls" tls: Option<Tls>,
        /// Where clients are sent instead, before anything else.
        "redirect" redirect: Option<Redirect>,
        /// Who may use it: see [authentication.md](authentication.md).
        "auth" auth: Option<Auth>,
        /// From where it may be used; others are answered 403, but 401 before that where `auth` does not know them.
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
        /// Believes everybody.
        "insecure" insecure: bool,
        /// Believes these addresses and networks. With neither of the two, nobody.
        "trustedIPs" trusted_ips: Vec<String>,
    }

    /// TLS of an entry point.
    pub struct Tls {
        place;
        /// `VersionTLS12` or `VersionTLS13`; `VersionTLS10` and `VersionTLS11` are known, and mean 1.2. Empty: 1.2.
        "minVersion" min_version: String,
        /// Go's names of the cipher suites to offer. Empty: all that are there. None that can be offered is an error.
        "cipherSuites" cipher_suites: Vec<String>,
        /// Ends handshakes for names that have no certificate.
        "sniStrict" sni_strict: bool,
        /// The certificates; a client is shown the one that fits its name best.
        "certificates" certificates: Vec<Certificate>,
        /// The one for other names. Left out: the first of `certificates`, or one made at start.
        "defaultCertificate" default_certificate: Option<Certificate>,
        /// Asks clients for certificates, and ends the handshake without a good one.
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
