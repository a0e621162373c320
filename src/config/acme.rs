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
        /// File of the account and the certificates; with a key-value store, a key in it.
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
        /// Deprecated: orders certificates for names that clients ask for and rules take.
        "onDemand" on_demand: bool,
        /// Logs each request to the authority.
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
        /// Who makes the records: `exec`, `httpreq` or `rfc2136`.
        "provider" provider: String,
        /// Waits this long instead of asking the name servers of the zone; 0 asks them.
        "delayBeforeCheck" delay_before_check: Duration,
        /// Neither asks nor waits.
        "disablePropagationCheck" disable_propagation_check: bool,
        /// Name servers, `host:port`, that are asked who answers for the zone. Empty: the system's.
        "resolvers" resolvers: Vec<String>,
    }
}
