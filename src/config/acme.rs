//! Static options of `[acme]`: certificates obtained and renewed by themselves. Spec acme 1.
//!
//! Never talks to a certificate authority. Read next: `store.rs`.

use std::time::Duration;

use super::option::options;

options! {
    /// Certificates obtained and renewed by themselves.
    pub struct Acme {
        place;
        /// Contact given to the certificate authority.
        "email" email: String,
        /// File of the account and the certificates; a key where a store is used.
        "storage" storage: String,
        /// Deprecated: use `storage`.
        "storageFile" storage_file: String,
        /// Entry point with TLS that uses the certificates.
        "entryPoint" entry_point: String,
        /// `EC256`, `EC384`, `RSA2048`, `RSA4096` or `RSA8192`.
        "keyType" key_type: String = "RSA4096".to_owned(),
        /// Directory of the certificate authority.
        "caServer" ca_server: String = "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
        /// Orders certificates for the hosts in rules.
        "onHostRule" on_host_rule: bool,
        /// Deprecated: orders certificates during handshakes.
        "onDemand" on_demand: bool,
        /// Logs the protocol.
        "acmeLogging" acme_logging: bool,
        /// Lets `storeconfig` replace certificates in the store.
        "overrideCertificates" override_certificates: bool,
        /// Certificates to order; as a flag `main.org,other.org;second.org`.
        "domains" domains: Vec<AcmeDomain>,
        /// Proves a name over HTTP.
        "httpChallenge" http_challenge: Option<HttpChallenge>,
        /// Proves a name over TLS.
        "tlsChallenge" tls_challenge: Option<TlsChallenge>,
        /// Proves a name over DNS.
        "dnsChallenge" dns_challenge: Option<DnsChallenge>,
        /// Deprecated: use `dnsChallenge.provider`.
        "dnsProvider" dns_provider: String,
        /// Deprecated: use `dnsChallenge.delayBeforeCheck`.
        "delayDontCheckDNS" delay_dont_check_dns: Duration,
    }

    /// One certificate to order.
    pub struct AcmeDomain {
        /// First name.
        "main" main: String,
        /// Other names.
        "sans" sans: Vec<String>,
    }

    /// Proof over HTTP.
    pub struct HttpChallenge {
        /// Entry point reachable as port 80.
        "entryPoint" entry_point: String,
    }

    /// Proof over TLS.
    pub struct TlsChallenge {
    }

    /// Proof over DNS.
    pub struct DnsChallenge {
        /// Code of the DNS provider.
        "provider" provider: String,
        /// Waits this long instead of asking the name servers; 0 asks them.
        "delayBeforeCheck" delay_before_check: Duration,
        /// Asks nobody.
        "disablePropagationCheck" disable_propagation_check: bool,
        /// Name servers to ask, `host:port`. Empty: the system's.
        "resolvers" resolvers: Vec<String>,
    }
}
