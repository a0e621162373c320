//! Dynamic configuration: frontends, backends, certificates, as one provider wrote them.
//!
//! Owns the names and types of spec frontends 1 to 9, backends 1 and file-provider 2. Text that needs more than a type
//! (rules, CIDRs, ranges) stays text here and is parsed by `compile`. Never holds a default of another layer: an
//! option that was not written is `None` or empty.
//! Read next: `compile/mod.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::export;
use super::option::options;
use super::shared::Shared;

impl Dynamic {
    /// The configuration as JSON, without its secrets.
    pub fn shown(&self) -> String {
        export::json(self).to_string()
    }
}

options! {
    /// What one provider says.
    pub struct Dynamic {
        /// Named sets of servers, which frontends ask for by name.
        "backends" backends: BTreeMap<String, Shared<Backend>>,
        /// Named sets of rules that choose a backend. One with a mistake is left out with a message that names the place, and its requests get 404; the others are served.
        "frontends" frontends: BTreeMap<String, Shared<Frontend>>,
        /// Certificates that can change without a restart.
        "tls" tls: Vec<TlsEntry>,
    }

    /// A set of servers with a policy.
    pub struct Backend {
        place;
        /// The servers by name; they are asked in the order of their names.
        "servers" servers: BTreeMap<String, Server>,
        /// How the next server is chosen.
        "loadBalancer" load_balancer: Option<LoadBalancer>,
        /// When the backend is left alone for a while.
        "circuitBreaker" circuit_breaker: Option<CircuitBreaker>,
        /// How many requests may be under way at once.
        "maxConn" max_conn: Option<MaxConn>,
        /// Asking each server whether it works.
        "healthCheck" health_check: Option<HealthCheck>,
        /// Leaving servers alone that fail again and again, Coreway's own.
        "ejection" ejection: Option<Ejection>,
        /// Holding whole requests and answers, with limits. Nothing is streamed then.
        "buffering" buffering: Option<Buffering>,
        /// When parts of an answer are passed on.
        "responseForwarding" response_forwarding: Option<ResponseForwarding>,
    }

    /// One address of a backend.
    pub struct Server {
        place;
        /// `scheme://host:port`; a path is ignored. `http`; `https`, where the server chooses between HTTP/2 and HTTP/1.1; or
        /// `h2c`, HTTP/2 without TLS.
        "url" url: String,
        /// Share of the requests. Left out: 1. An explicit 0 is 1 unless `allowMinWeightZero`.
        "weight" weight: Option<i64>,
    }

    /// How the next server is chosen.
    pub struct LoadBalancer {
        place;
        /// `wrr` (turns by weight), `drr` (fewer turns for servers that answer worse), or, beyond 1.7, `leastconn` (the least busy for its weight), `p2c` (the less busy of two at random), `hash` (the same client, the same server). In any case; anything else is `wrr`.
        "method" method: String,
        /// Beyond 1.7: what the method `hash` looks at.
        "hash" hash: Option<Hash>,
        /// Beyond 1.7: a server that comes back gets its whole weight only after this long. Go text or seconds.
        "slowStart" slow_start: Option<Duration>,
        /// Deprecated: use `stickiness`. Its cookie is called `_TRAEFIK_BACKEND`.
        "sticky" sticky: bool,
        /// A cookie that brings a client back to its server.
        "stickiness" stickiness: Option<Stickiness>,
    }

    /// What decides which server a request belongs to.
    pub struct Hash {
        /// `client.ip`, `request.host`, `request.header.<Name>` or `request.cookie.<Name>`. Empty: `client.ip`. A request that has it not is given to the next server.
        "extractorFunc" extractor_func: String,
        /// How much of its share of the requests under way a server may bear, in percent and above 100; what is more goes to the next. 0 is no limit.
        "balanceFactor" balance_factor: i64,
    }

    /// The cookie that brings a client back to its server.
    pub struct Stickiness {
        /// Name of the cookie; characters that a name cannot have become `_`. Empty: `_` and five digits made from the backend's name.
        "cookieName" cookie_name: String,
        /// Sends the cookie over TLS only.
        "secure" secure: bool,
        /// Hides the cookie from scripts.
        "httpOnly" http_only: bool,
        /// `none`, `lax` or `strict`; anything else leaves the attribute out.
        "sameSite" same_site: String,
    }

    /// When a backend is left alone.
    pub struct CircuitBreaker {
        place;
        /// The condition, such as `NetworkErrorRatio() > 0.5`: see [servers.md](servers.md#circuit-breakers).
        "expression" expression: String,
    }

    /// Requests under way at once.
    pub struct MaxConn {
        place;
        /// How many for one key; 0 is no limit.
        "amount" amount: i64,
        /// What they are counted by: `client.ip`, `request.host` or `request.header.<Name>`.
        "extractorFunc" extractor_func: String,
    }

    /// Asking each server whether it works.
    pub struct HealthCheck {
        place;
        /// Path to ask for, with a query if one is wanted; empty checks nothing. See [servers.md](servers.md#health-checks).
        "path" path: String,
        /// Time between checks as Go text such as `10s`. Empty: `healthCheck.interval` of the static configuration.
        "interval" interval: String,
        /// Port to ask instead of the server's.
        "port" port: i64,
        /// Scheme to use instead of the server's.
        "scheme" scheme: String,
        /// Value of the Host header.
        "hostname" hostname: String,
        /// Header fields to send.
        "headers" headers: BTreeMap<String, String>,
    }

    /// Leaving servers alone that fail again and again, Coreway's own: see [servers.md](servers.md#ejection).
    pub struct Ejection {
        place;
        /// Failures in a row that are too many.
        "failures" failures: i64 = 5,
        /// How long the server is then left alone: Go text or seconds.
        "time" time: Duration = Duration::from_secs(30),
        /// How many of a hundred servers may be away at once; one always may, and never all.
        "maxShare" max_share: i64 = 50,
    }

    /// Holding whole requests and answers.
    pub struct Buffering {
        place;
        /// Longest request body in bytes, over it 413; 0 is no limit.
        "maxRequestBodyBytes" max_request_body_bytes: i64,
        /// Bytes of a request body that are held in memory, the rest goes to a file; 0 is 1 MiB.
        "memRequestBodyBytes" mem_request_body_bytes: i64,
        /// Longest answer body in bytes, over it 500; 0 is no limit.
        "maxResponseBodyBytes" max_response_body_bytes: i64,
        /// Bytes of an answer body that are held in memory, the rest goes to a file; 0 is 1 MiB.
        "memResponseBodyBytes" mem_response_body_bytes: i64,
        /// When a request is sent again, such as `IsNetworkError() && Attempts() <= 2`; at most 11 times.
        "retryExpression" retry_expression: String,
    }

    /// When parts of an answer are passed on.
    pub struct ResponseForwarding {
        place;
        /// Longest wait before what has arrived is passed on: Go text or seconds. Whatever it says, nothing waits.
        "flushInterval" flush_interval: String,
    }

    /// Rules and the backend they choose.
    pub struct Frontend {
        place;
        /// Name of the backend, of the same provider. Where there is none of that name, the frontend is left out.
        "backend" backend: String,
        /// Entry points it is reachable on. Empty: `defaultEntryPoints`. Unknown names are passed over with a message.
        "entryPoints" entry_points: Vec<String>,
        /// The rules by name; a request must fulfil all of them.
        "routes" routes: BTreeMap<String, Route>,
        /// Sends the client's `Host` on, instead of the server's host and port.
        "passHostHeader" pass_host_header: bool,
        /// Deprecated: `https://` servers are shown the certificates of the entry point, and believed if its `clientCA.files` know
        /// them (without those, the system's authorities). Use `passTLSClientCert` to tell them of a client's.
        "passTLSCert" pass_tls_cert: bool,
        /// Tells servers about the client's certificate in header fields.
        "passTLSClientCert" pass_tls_client_cert: Option<PassTlsClientCert>,
        /// Larger goes first. 0 or less: the length of all its rules together.
        "priority" priority: i64,
        /// Deprecated: use `auth.basic.users`.
        "basicAuth" basic_auth: Vec<String>,
        /// Who may use it: see [authentication.md](authentication.md).
        "auth" auth: Option<Auth>,
        /// Deprecated: use `whiteList.sourceRange`.
        "whitelistSourceRange" whitelist_source_range: Vec<String>,
        /// From where it may be used; others are answered 403.
        "whiteList" white_list: Option<WhiteList>,
        /// Header fields to set and remove, checks of host and TLS, and what browsers are told for their safety.
        "headers" headers: Option<Headers>,
        /// Pages to show instead of errors, by name; the first by name that covers the status.
        "errors" errors: BTreeMap<String, ErrorPage>,
        /// How often it may be used: one limit for the frontend, over all its entry points and cores.
        "ratelimit" ratelimit: Option<RateLimit>,
        /// Where clients are sent instead, before anybody asks who they are.
        "redirect" redirect: Option<Redirect>,
    }

    /// One rule of a frontend.
    pub struct Route {
        place;
        /// The rule, such as `Host:example.org;PathPrefix:/api`.
        "rule" rule: String,
    }

    /// What servers are told of a client's certificate.
    pub struct PassTlsClientCert {
        place;
        /// The certificate itself with its chain, in `X-Forwarded-Tls-Client-Cert`. Never taken from a client.
        "pem" pem: bool,
        /// Selected fields of it, in `X-Forwarded-Tls-Client-Cert-Infos`. Never taken from a client.
        "infos" infos: Option<TlsClientCertInfos>,
    }

    /// Fields of a client's certificate.
    pub struct TlsClientCertInfos {
        /// Start of its validity, as `NB=` and seconds since 1970.
        "notBefore" not_before: bool,
        /// End of its validity, as `NA=` and seconds since 1970.
        "notAfter" not_after: bool,
        /// Alternative names, as `SAN=`.
        "sans" sans: bool,
        /// Parts of its subject.
        "subject" subject: Option<DistinguishedName>,
        /// Parts of its issuer.
        "issuer" issuer: Option<DistinguishedName>,
    }

    /// Parts of a distinguished name.
    pub struct DistinguishedName {
        /// The country, as `C=`.
        "country" country: bool,
        /// The province, as `ST=`.
        "province" province: bool,
        /// The locality, as `L=`.
        "locality" locality: bool,
        /// The organization, as `O=`.
        "organization" organization: bool,
        /// The common name, as `CN=`.
        "commonName" common_name: bool,
        /// The serial number, as `SN=`.
        "serialNumber" serial_number: bool,
        /// The domain components, as `DC=`.
        "domainComponent" domain_component: bool,
    }

    /// Who may use a frontend or an entry point: the first of `basic`, `digest` and `forward` that is there decides.
    pub struct Auth {
        place;
        /// HTTP Basic authentication: a name and a password.
        "basic" basic: Option<AuthUsers>,
        /// HTTP Digest authentication: a proof of a password.
        "digest" digest: Option<AuthUsers>,
        /// Another server decides about each request.
        "forward" forward: Option<AuthForward>,
        /// Header field that receives the user's name (basic, digest). What a client sent under that name is removed.
        "headerField" header_field: String,
    }

    /// Users and their passwords.
    pub struct AuthUsers {
        /// `name:hash` (basic; bcrypt, MD5 crypt or `{SHA}`, as htpasswd writes them) or `name:realm:hash` (digest, of the realm `traefik`).
        "users" users: Vec<String>,
        /// File with one user a line; `#` begins a comment. Its users count before those of `users`, and its changes are seen.
        "usersFile" users_file: String,
        /// Removes `Authorization` before the request is passed on.
        "removeHeader" remove_header: bool,
    }

    /// A server that decides who may pass.
    pub struct AuthForward {
        /// URL to ask with GET; 2xx lets the request pass, any other answer goes to the client, none is 500.
        "address" address: String,
        /// Tells it the client's own `X-Forwarded-*`, where there are any, instead of what we know.
        "trustForwardHeader" trust_forward_header: bool,
        /// Header fields copied from its answer into the request, in place of what the client sent.
        "authResponseHeaders" auth_response_headers: Vec<String>,
        /// How it is spoken to over TLS.
        "tls" tls: Option<ClientTls>,
    }

    /// TLS towards a server of ours. Each of `ca`, `cert` and `key` is a path or PEM text.
    pub struct ClientTls {
        /// Certificates the server's must come from. Empty: those the system believes.
        "ca" ca: String,
        /// Has no effect for a client.
        "caOptional" ca_optional: bool,
        /// Our certificate.
        "cert" cert: String,
        /// Its private key.
        "key" key: String,
        /// Accepts any certificate.
        "insecureSkipVerify" insecure_skip_verify: bool,
    }

    /// From where a frontend or an entry point may be used.
    pub struct WhiteList {
        place;
        /// IPv4 and IPv6 addresses and networks that may pass, by the address of the peer (with `proxyProtocol`, of its client). An empty list checks nothing.
        "sourceRange" source_range: Vec<String>,
        /// Lets pass whom any address in `X-Forwarded-For` stands on the list for. Every client can write that field: only for use behind a proxy that sets it.
        "useXForwardedFor" use_x_forwarded_for: bool,
    }

    /// Header fields to set, and security headers.
    pub struct Headers {
        place;
        /// Set on requests, in place of what the client sent and before authentication; an empty value removes the field. `Host` has no effect.
        "customRequestHeaders" custom_request_headers: BTreeMap<String, String>,
        /// Set on answers of servers, and on the 500, 502 and 504 in their place; an empty value removes the field.
        "customResponseHeaders" custom_response_headers: BTreeMap<String, String>,
        /// Hosts, with their port, that may be asked for, in any case; another is answered 500 `Bad Host`. Empty: any.
        "allowedHosts" allowed_hosts: Vec<String>,
        /// Header fields that say the host in place of `Host`; the first that is not empty counts.
        "hostsProxyHeaders" hosts_proxy_headers: Vec<String>,
        /// Sends clients without TLS to the same place under https, with 301.
        "SSLRedirect" ssl_redirect: bool,
        /// Sends them with 307 instead.
        "SSLTemporaryRedirect" ssl_temporary_redirect: bool,
        /// Host, with its port, to send them to; empty is the one that was asked for. A `Location: http://` of this host in an answer over TLS becomes https.
        "SSLHost" ssl_host: String,
        /// Sends clients of other hosts to `SSLHost` too, even with `isDevelopment`.
        "SSLForceHost" ssl_force_host: bool,
        /// Header fields whose exact value says that the client speaks TLS to a proxy before this one.
        "SSLProxyHeaders" ssl_proxy_headers: BTreeMap<String, String>,
        /// `max-age` of `Strict-Transport-Security`, sent over TLS; 0 leaves the field out.
        "STSSeconds" sts_seconds: i64,
        /// Adds `includeSubDomains` to it.
        "STSIncludeSubdomains" sts_include_subdomains: bool,
        /// Adds `preload` to it.
        "STSPreload" sts_preload: bool,
        /// Sends it without TLS too.
        "forceSTSHeader" force_sts_header: bool,
        /// Sends `X-Frame-Options: DENY`.
        "frameDeny" frame_deny: bool,
        /// Sends `X-Frame-Options` with this value, whatever `frameDeny` says.
        "customFrameOptionsValue" custom_frame_options_value: String,
        /// Sends `X-Content-Type-Options: nosniff`.
        "contentTypeNosniff" content_type_nosniff: bool,
        /// Sends `X-XSS-Protection: 1; mode=block`.
        "browserXssFilter" browser_xss_filter: bool,
        /// Sends `X-XSS-Protection` with this value, whatever `browserXssFilter` says.
        "customBrowserXSSValue" custom_browser_xss_value: String,
        /// Sends `Content-Security-Policy` with this value; each `$NONCE` in it becomes `'nonce-...'` with 16 random bytes, new for every answer.
        "contentSecurityPolicy" content_security_policy: String,
        /// Sends `Public-Key-Pins` with this value over TLS. Browsers no longer look at it.
        "publicKey" public_key: String,
        /// Sends `Referrer-Policy` with this value.
        "referrerPolicy" referrer_policy: String,
        /// Turns `allowedHosts`, `SSLRedirect`, `STSSeconds` and `publicKey` off.
        "isDevelopment" is_development: bool,
    }

    /// A page to show instead of an error.
    pub struct ErrorPage {
        place;
        /// Codes and ranges it is for, such as `404` or `500-599`, of servers' answers and of our own.
        "status" status: Vec<String>,
        /// Backend that has the page, of the same provider; not the frontend's own.
        "backend" backend: String,
        /// Path and query to ask it for; `{status}` stands for the code. Empty: `/`.
        "query" query: String,
    }

    /// How often a frontend may be used.
    pub struct RateLimit {
        place;
        /// Who is counted: `client.ip`, `request.host` or `request.header.<Name>`. Requests without that field are counted together.
        "extractorFunc" extractor_func: String,
        /// The rates by name. A request must keep all of them, or is answered 429 with `Retry-After` and counts for none.
        "rateSet" rate_set: BTreeMap<String, Rate>,
    }

    /// One rate.
    pub struct Rate {
        /// The time that `average` is meant for: Go text or seconds, above 0.
        "period" period: Duration,
        /// Requests in a period, above 0: one more may come each `period / average`.
        "average" average: i64,
        /// Requests that may come at once, above 0.
        "burst" burst: i64,
    }

    /// Where clients of a frontend or an entry point are sent: to another entry point, or by a regular expression.
    pub struct Redirect {
        place;
        /// Name of an entry point: the same URL with its scheme and port. Goes before `regex`.
        "entryPoint" entry_point: String,
        /// Go regular expression over the whole URL, anywhere in it; where it does not match, the request goes on.
        "regex" regex: String,
        /// What its matches become: `$1` and `${name}` are its groups, `{{.Request.Host}}` and its like parts of the request.
        "replacement" replacement: String,
        /// Answers 301 (GET) and 308 (others) instead of 302 and 307.
        "permanent" permanent: bool,
    }

    /// A certificate for some entry points.
    pub struct TlsEntry {
        place;
        /// Entry points that use it. Empty: `defaultEntryPoints`.
        "entryPoints" entry_points: Vec<String>,
        /// The certificate.
        "certificate" certificate: Certificate,
    }

    /// A certificate and its key: each a path or PEM text.
    pub struct Certificate {
        /// The certificate with its chain.
        "certFile" cert_file: String,
        /// Its private key.
        "keyFile" key_file: String,
    }
}
