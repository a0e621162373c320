//! Backends and frontends as the API of 1.7 shows them: its names, its order, what it leaves out.
//!
//! Owns what nobody may see: lists of users and private keys are not written at all. Source: spec api-metrics-logs 2.1.
//! Options that 1.7 does not have stand behind those it has. Read next: `text.rs`.

use crate::config::dynamic::{
    Auth, AuthForward, AuthUsers, Backend, ClientTls, DistinguishedName, Dynamic, Frontend,
    Headers, HealthCheck, LoadBalancer, PassTlsClientCert, Route, Server, TlsClientCertInfos,
};

use super::text::Object;

/// The cookie of the deprecated `sticky`.
const STICKY_COOKIE: &str = "_TRAEFIK_BACKEND";

/// Methods that are not replaced by `wrr`.
const METHODS: [&str; 5] = ["wrr", "drr", "leastconn", "p2c", "hash"];

/// How far what was written is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner<'a> {
    /// As it was written.
    Written,
    /// As it is served, with these entry points where none is named.
    Served(&'a [String]),
}

/// A whole configuration.
pub(super) fn dynamic(object: &mut Object<'_>, dynamic: &Dynamic, manner: Manner<'_>) {
    object.map("backends", &dynamic.backends, |object, value| {
        backend(object, value, manner);
    });
    object.map("frontends", &dynamic.frontends, |object, value| {
        frontend(object, value, manner);
    });
}

pub(super) fn backend(object: &mut Object<'_>, backend: &Backend, manner: Manner<'_>) {
    object.map("servers", &backend.servers, server);
    object.section(
        "circuitBreaker",
        backend.circuit_breaker.as_ref(),
        |object, breaker| object.text("expression", &breaker.expression),
    );
    let balancer = balancer(backend.load_balancer.as_ref(), manner);
    object.section("loadBalancer", balancer.as_ref(), load_balancer);
    object.section("maxConn", backend.max_conn.as_ref(), |object, max| {
        object.number("amount", max.amount);
        object.text("extractorFunc", &max.extractor_func);
    });
    object.section("healthCheck", backend.health_check.as_ref(), health_check);
    object.section(
        "buffering",
        backend.buffering.as_ref(),
        |object, buffering| {
            object.number("maxRequestBodyBytes", buffering.max_request_body_bytes);
            object.number("memRequestBodyBytes", buffering.mem_request_body_bytes);
            object.number("maxResponseBodyBytes", buffering.max_response_body_bytes);
            object.number("memResponseBodyBytes", buffering.mem_response_body_bytes);
            object.text("retryExpression", &buffering.retry_expression);
        },
    );
    object.section(
        "forwardingResponse",
        backend.response_forwarding.as_ref(),
        |object, forwarding| object.text("flushInterval", &forwarding.flush_interval),
    );
    object.section("ejection", backend.ejection.as_ref(), |object, ejection| {
        object.any("failures", ejection.failures);
        object.any("time", ejection.time.as_nanos());
        object.any("maxShare", ejection.max_share);
    });
}

/// The load balancer as the reference fills it in: a method that nobody knows is `wrr`, and the old cookie is a new one.
fn balancer(written: Option<&LoadBalancer>, manner: Manner<'_>) -> Option<LoadBalancer> {
    if let Manner::Written = manner {
        return written.cloned();
    }
    let mut balancer = written.cloned().unwrap_or_default();
    if balancer.sticky && balancer.stickiness.is_none() {
        let stickiness = balancer.stickiness.get_or_insert_default();
        stickiness.cookie_name = STICKY_COOKIE.to_owned();
    }
    let is_known = |known: &&str| balancer.method.eq_ignore_ascii_case(known);
    if !METHODS.iter().any(is_known) {
        balancer.method = "wrr".to_owned();
        balancer.sticky = false;
    }
    Some(balancer)
}

fn load_balancer(object: &mut Object<'_>, balancer: &LoadBalancer) {
    object.text("method", &balancer.method);
    object.flag("sticky", balancer.sticky);
    object.section(
        "stickiness",
        balancer.stickiness.as_ref(),
        |object, cookie| {
            object.text("cookieName", &cookie.cookie_name);
            object.flag("secure", cookie.secure);
            object.flag("httpOnly", cookie.http_only);
            object.text("sameSite", &cookie.same_site);
        },
    );
    object.section("hash", balancer.hash.as_ref(), |object, hash| {
        object.text("extractorFunc", &hash.extractor_func);
        object.number("balanceFactor", hash.balance_factor);
    });
    if let Some(slow_start) = balancer.slow_start {
        object.any("slowStart", slow_start.as_nanos());
    }
}

fn health_check(object: &mut Object<'_>, check: &HealthCheck) {
    object.text("scheme", &check.scheme);
    object.text("path", &check.path);
    object.number("port", check.port);
    object.text("interval", &check.interval);
    object.text("hostname", &check.hostname);
    object.pairs("headers", &check.headers);
}

/// A server without a weight has that of one: so it is served.
pub(super) fn server(object: &mut Object<'_>, server: &Server) {
    object.text("url", &server.url);
    object.any("weight", server.weight.unwrap_or(1));
}

pub(super) fn route(object: &mut Object<'_>, route: &Route) {
    object.text("rule", &route.rule);
}

pub(super) fn frontend(object: &mut Object<'_>, frontend: &Frontend, manner: Manner<'_>) {
    let entry_points = match manner {
        Manner::Served(default) if frontend.entry_points.is_empty() => default,
        Manner::Served(_) | Manner::Written => &frontend.entry_points,
    };
    object.texts("entryPoints", entry_points);
    object.text("backend", &frontend.backend);
    object.map("routes", &frontend.routes, route);
    object.flag("passHostHeader", frontend.pass_host_header);
    object.flag("passTLSCert", frontend.pass_tls_cert);
    object.section(
        "passTLSClientCert",
        frontend.pass_tls_client_cert.as_ref(),
        client_certificate,
    );
    object.any("priority", frontend.priority);
    // Users are nobody's business, wherever they are written.
    object.any("basicAuth", "null");
    object.texts("whitelistSourceRange", &frontend.whitelist_source_range);
    object.section("whiteList", frontend.white_list.as_ref(), |object, list| {
        object.texts("sourceRange", &list.source_range);
        object.flag("useXForwardedFor", list.use_x_forwarded_for);
    });
    object.section("headers", frontend.headers.as_ref(), headers);
    object.map("errors", &frontend.errors, |object, page| {
        object.texts("status", &page.status);
        object.text("backend", &page.backend);
        object.text("query", &page.query);
    });
    object.section("ratelimit", frontend.ratelimit.as_ref(), |object, limit| {
        object.map("rateset", &limit.rate_set, |object, rate| {
            if !rate.period.is_zero() {
                object.any("period", rate.period.as_nanos());
            }
            object.number("average", rate.average);
            object.number("burst", rate.burst);
        });
        object.text("extractorFunc", &limit.extractor_func);
    });
    object.section(
        "redirect",
        frontend.redirect.as_ref(),
        |object, redirect| {
            object.text("entryPoint", &redirect.entry_point);
            object.text("regex", &redirect.regex);
            object.text("replacement", &redirect.replacement);
            object.flag("permanent", redirect.permanent);
        },
    );
    object.section("auth", frontend.auth.as_ref(), auth);
}

fn client_certificate(object: &mut Object<'_>, shown: &PassTlsClientCert) {
    object.any("pem", shown.pem);
    object.section("infos", shown.infos.as_ref(), infos);
}

fn infos(object: &mut Object<'_>, infos: &TlsClientCertInfos) {
    object.any("notAfter", infos.not_after);
    object.any("notBefore", infos.not_before);
    object.any("sans", infos.sans);
    object.section("subject", infos.subject.as_ref(), name);
    object.section("issuer", infos.issuer.as_ref(), name);
}

fn name(object: &mut Object<'_>, name: &DistinguishedName) {
    object.any("country", name.country);
    object.any("province", name.province);
    object.any("locality", name.locality);
    object.any("organization", name.organization);
    object.any("commonName", name.common_name);
    object.any("serialNumber", name.serial_number);
    object.any("domainComponent", name.domain_component);
}

fn headers(object: &mut Object<'_>, headers: &Headers) {
    object.pairs("customRequestHeaders", &headers.custom_request_headers);
    object.pairs("customResponseHeaders", &headers.custom_response_headers);
    object.texts("allowedHosts", &headers.allowed_hosts);
    object.texts("hostsProxyHeaders", &headers.hosts_proxy_headers);
    object.flag("sslRedirect", headers.ssl_redirect);
    object.flag("sslTemporaryRedirect", headers.ssl_temporary_redirect);
    object.text("sslHost", &headers.ssl_host);
    object.pairs("sslProxyHeaders", &headers.ssl_proxy_headers);
    object.flag("sslForceHost", headers.ssl_force_host);
    object.number("stsSeconds", headers.sts_seconds);
    object.flag("stsIncludeSubdomains", headers.sts_include_subdomains);
    object.flag("stsPreload", headers.sts_preload);
    object.flag("forceSTSHeader", headers.force_sts_header);
    object.flag("frameDeny", headers.frame_deny);
    object.text(
        "customFrameOptionsValue",
        &headers.custom_frame_options_value,
    );
    object.flag("contentTypeNosniff", headers.content_type_nosniff);
    object.flag("browserXssFilter", headers.browser_xss_filter);
    object.text("customBrowserXSSValue", &headers.custom_browser_xss_value);
    object.text("contentSecurityPolicy", &headers.content_security_policy);
    object.text("publicKey", &headers.public_key);
    object.text("referrerPolicy", &headers.referrer_policy);
    object.flag("isDevelopment", headers.is_development);
}

fn auth(object: &mut Object<'_>, auth: &Auth) {
    object.section("basic", auth.basic.as_ref(), users);
    object.section("digest", auth.digest.as_ref(), users);
    object.section("forward", auth.forward.as_ref(), forward);
    object.text("headerField", &auth.header_field);
}

/// Without the users.
fn users(object: &mut Object<'_>, users: &AuthUsers) {
    object.text("usersFile", &users.users_file);
    object.flag("removeHeader", users.remove_header);
}

fn forward(object: &mut Object<'_>, forward: &AuthForward) {
    object.text("address", &forward.address);
    object.section("tls", forward.tls.as_ref(), client_tls);
    object.flag("trustForwardHeader", forward.trust_forward_header);
    object.texts("authResponseHeaders", &forward.auth_response_headers);
}

/// Without the private key; a certificate may hold one beside it.
fn client_tls(object: &mut Object<'_>, tls: &ClientTls) {
    object.text("ca", &tls.ca);
    object.flag("caOptional", tls.ca_optional);
    if !tls.cert.contains("PRIVATE KEY") {
        object.text("cert", &tls.cert);
    }
    object.flag("insecureSkipVerify", tls.insecure_skip_verify);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic_from_toml;

    fn check(toml: &str, expected: &str) {
        let (written, _) = dynamic_from_toml("f", toml).expect("valid");
        let default = ["http".to_owned()];
        let mut out = Vec::new();
        Object::write(&mut out, |object| {
            dynamic(object, &written, Manner::Served(&default));
        });
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn what_is_not_written_is_left_out_as_in_the_reference() {
        check("", "{}");
        check(
            "[backends.b.servers.s]\nurl = 'http://a'\n[frontends.f]\nbackend = 'b'\n[frontends.f.routes.r]\nrule = 'Host:a&b'\n",
            r#"{"backends":{"b":{"servers":{"s":{"url":"http://a","weight":1}},"loadBalancer":{"method":"wrr"}}},"frontends":{"f":{"entryPoints":["http"],"backend":"b","routes":{"r":{"rule":"Host:a\u0026b"}},"priority":0,"basicAuth":null}}}"#,
        );
    }

    #[test]
    fn load_balancers_are_filled_in_as_in_the_reference() {
        let check = |toml: &str, expected: &str| {
            check(
                &format!("[backends.b.loadBalancer]\n{toml}"),
                &format!(r#"{{"backends":{{"b":{{"loadBalancer":{expected}}}}}}}"#),
            );
        };
        check("method = 'DRR'", r#"{"method":"DRR"}"#);
        check(
            "method = 'x'\nsticky = true",
            r#"{"method":"wrr","stickiness":{"cookieName":"_TRAEFIK_BACKEND"}}"#,
        );
        check(
            "method = 'drr'\nsticky = true",
            r#"{"method":"drr","sticky":true,"stickiness":{"cookieName":"_TRAEFIK_BACKEND"}}"#,
        );
        check(
            "[backends.b.loadBalancer.stickiness]\nsecure = true",
            r#"{"method":"wrr","stickiness":{"secure":true}}"#,
        );
    }

    #[test]
    fn nothing_secret_is_shown() {
        let toml = "[frontends.f]\nbasicAuth = ['anna:geheim']\n[frontends.f.auth.basic]\nusers = ['anna:geheim']\nremoveHeader = true\n\
             [frontends.f.auth.digest]\nusers = ['anna:traefik:geheim']\nusersFile = '/u'\n[frontends.f.auth.forward]\naddress = 'https://a'\n\
             [frontends.f.auth.forward.tls]\ncert = 'PRIVATE KEY geheim'\nkey = 'geheim'\n\
             [[tls]]\n[tls.certificate]\ncertFile = 'geheim'\nkeyFile = 'geheim'\n";
        check(
            toml,
            r#"{"frontends":{"f":{"entryPoints":["http"],"priority":0,"basicAuth":null,"auth":{"basic":{"removeHeader":true},"digest":{"usersFile":"/u"},"forward":{"address":"https://a","tls":{}}}}}}"#,
        );
    }
}
