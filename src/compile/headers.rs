//! The `headers` of a frontend: fields to change, and security options. Spec frontends 3.
//!
//! Owns the spelling of the fields that are the same in every answer, made here once.
//! Read next: `frontend/middleware/headers.rs`.

use std::collections::BTreeMap;

use super::middleware::Refusal;
use crate::config::dynamic;
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::headers::{Change, Headers, Security, Sign};

/// `None` if the section asks for nothing.
///
/// # Errors
/// A name or value cannot stand in a message.
pub(super) fn of_frontend(written: &dynamic::Headers) -> Result<Option<Middleware>, Refusal> {
    let refuse = |why: String| (written.place.clone(), format!("headers: {why}"));
    // `Host` is not a field like others: setting it has no effect, as in the reference.
    let request: Box<[Change]> = changes(&written.custom_request_headers)
        .filter(|(name, _)| !name.eq_ignore_ascii_case("Host"))
        .map(|(_, change)| change)
        .collect::<Result<_, _>>()
        .map_err(refuse)?;
    // Nor is `Connection`: it would take away what else is set.
    let answer: Box<[Change]> = changes(&written.custom_response_headers)
        .filter(|(name, _)| !name.eq_ignore_ascii_case("Connection"))
        .map(|(_, change)| change)
        .collect::<Result<_, _>>()
        .map_err(refuse)?;
    let security = security(written).map_err(refuse)?.map(Box::new);
    if request.is_empty() && answer.is_empty() && security.is_none() {
        return Ok(None);
    }
    Ok(Some(Middleware::Headers(Box::new(Headers {
        request,
        answer,
        security,
    }))))
}

fn changes(
    written: &BTreeMap<String, String>,
) -> impl Iterator<Item = (&str, Result<Change, String>)> {
    written
        .iter()
        .map(|(name, value)| (name.as_str(), change(name, value)))
}

fn change(name: &str, value: &str) -> Result<Change, String> {
    Change::new(name, value)
        .ok_or_else(|| format!("{name:?} with the value {value:?} cannot be sent"))
}

/// `None` if no option is set that asks for something.
fn security(written: &dynamic::Headers) -> Result<Option<Security>, String> {
    let mut fixed = Vec::new();
    let custom_or = |custom: &str, is_on: bool, usual: &'static str| match custom {
        "" if is_on => usual.to_owned(),
        _ => custom.to_owned(),
    };
    let nosniff = if written.content_type_nosniff {
        "nosniff"
    } else {
        ""
    };
    for (name, value) in [
        (
            "X-Frame-Options",
            custom_or(
                &written.custom_frame_options_value,
                written.frame_deny,
                "DENY",
            ),
        ),
        ("X-Content-Type-Options", nosniff.to_owned()),
        (
            "X-Xss-Protection",
            custom_or(
                &written.custom_browser_xss_value,
                written.browser_xss_filter,
                "1; mode=block",
            ),
        ),
        ("Referrer-Policy", written.referrer_policy.clone()),
    ] {
        if !value.is_empty() {
            fixed.push(change(name, &value)?);
        }
    }
    let sts = match written.sts_seconds {
        0 => String::new(),
        seconds => {
            let sub = if written.sts_include_subdomains {
                "; includeSubDomains"
            } else {
                ""
            };
            let preload = if written.sts_preload { "; preload" } else { "" };
            format!("max-age={seconds}{sub}{preload}")
        }
    };
    for (name, value) in [
        ("Public-Key-Pins", &written.public_key),
        ("Content-Security-Policy", &written.content_security_policy),
    ] {
        change(name, value)?;
    }
    let policy = match &*written.content_security_policy {
        "" => Box::default(),
        policy => policy.split("$NONCE").map(bytes).collect(),
    };
    let security = Security {
        allowed_hosts: written
            .allowed_hosts
            .iter()
            .map(|host| bytes(host))
            .collect(),
        hosts_proxy_headers: written
            .hosts_proxy_headers
            .iter()
            .map(|name| bytes(name))
            .collect(),
        ssl_redirect: written.ssl_redirect,
        ssl_temporary_redirect: written.ssl_temporary_redirect,
        ssl_host: bytes(&written.ssl_host),
        ssl_force_host: written.ssl_force_host,
        ssl_proxy_headers: written
            .ssl_proxy_headers
            .iter()
            .map(|(name, value)| Sign {
                name: bytes(name),
                value: bytes(value),
            })
            .collect(),
        sts: bytes(&sts),
        sts_always: written.force_sts_header,
        public_key: bytes(&written.public_key),
        fixed: fixed.into(),
        policy,
        is_development: written.is_development,
    };
    let asks = !security.allowed_hosts.is_empty()
        || security.ssl_redirect
        || !security.ssl_host.is_empty()
        || !security.sts.is_empty()
        || !security.public_key.is_empty()
        || !security.fixed.is_empty()
        || !security.policy.is_empty();
    Ok(asks.then_some(security))
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(toml: &str) -> Result<Option<Headers>, String> {
        let text = format!("[frontends.f.headers]\n{toml}");
        let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
        let written = dynamic.frontends["f"].headers.as_ref().expect("written");
        match of_frontend(written) {
            Ok(Some(Middleware::Headers(headers))) => Ok(Some(*headers)),
            Ok(_) => Ok(None),
            Err((place, why)) => Err(format!("{place}: {why}")),
        }
    }

    #[track_caller]
    fn check_error(toml: &str, expected: &str) {
        assert_eq!(headers(toml).map(|_| ()), Err(expected.to_owned()));
    }

    #[test]
    fn what_asks_for_nothing_is_no_step() {
        for toml in [
            "",
            "isDevelopment = true",
            "STSPreload = true",
            "hostsProxyHeaders = ['X']",
            "SSLTemporaryRedirect = true",
            "SSLForceHost = true",
            "[frontends.f.headers.SSLProxyHeaders]\nX-Proto = 'https'",
            "[frontends.f.headers.customRequestHeaders]\nhost = 'x'",
        ] {
            assert!(matches!(headers(toml), Ok(None)), "{toml}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        check_error(
            "[frontends.f.headers.customRequestHeaders]\n'a b' = 'x'",
            "f:1:14: headers: \"a b\" with the value \"x\" cannot be sent",
        );
        check_error(
            "[frontends.f.headers.customResponseHeaders]\na = \"x\\r\\ny: z\"",
            "f:1:14: headers: \"a\" with the value \"x\\r\\ny: z\" cannot be sent",
        );
        check_error(
            "contentSecurityPolicy = \"a\\nb\"",
            "f:1:14: headers: \"Content-Security-Policy\" with the value \"a\\nb\" cannot be sent",
        );
    }

    /// The fields that are the same in every answer.
    #[track_caller]
    fn check_fixed(toml: &str, expected: &[(&str, &str)]) {
        let security = headers(toml).expect("good").expect("a step").security;
        let expected: Vec<Change> = expected
            .iter()
            .map(|(name, value)| Change::new(name, value).expect("a field"))
            .collect();
        assert_eq!(*security.expect("asked for").fixed, *expected, "{toml}");
    }

    #[test]
    fn fields_of_every_answer() {
        check_fixed("frameDeny = true", &[("X-Frame-Options", "DENY")]);
        check_fixed(
            "frameDeny = true\ncustomFrameOptionsValue = 'SAMEORIGIN'",
            &[("X-Frame-Options", "SAMEORIGIN")],
        );
        check_fixed(
            "contentTypeNosniff = true",
            &[("X-Content-Type-Options", "nosniff")],
        );
        check_fixed(
            "browserXssFilter = true",
            &[("X-Xss-Protection", "1; mode=block")],
        );
        check_fixed(
            "browserXssFilter = true\ncustomBrowserXSSValue = '0'",
            &[("X-Xss-Protection", "0")],
        );
        check_fixed(
            "referrerPolicy = 'no-referrer'",
            &[("Referrer-Policy", "no-referrer")],
        );
    }

    #[test]
    fn transport_security() {
        let check = |toml: &str, expected: &str| {
            let security = headers(toml).expect("good").expect("a step").security;
            let sts = security.expect("asked for").sts;
            assert_eq!(String::from_utf8_lossy(&sts), expected, "{toml}");
        };
        check("STSSeconds = 5", "max-age=5");
        check(
            "STSSeconds = 315360000\nSTSIncludeSubdomains = true\nSTSPreload = true",
            "max-age=315360000; includeSubDomains; preload",
        );
    }

    #[test]
    fn policies_are_cut_at_their_nonces() {
        let check = |policy: &str, expected: &[&str]| {
            let found = headers(&format!("contentSecurityPolicy = '{policy}'"));
            let policy = found
                .expect("good")
                .expect("a step")
                .security
                .expect("asked for")
                .policy;
            let texts: Vec<_> = policy
                .iter()
                .map(|text| String::from_utf8_lossy(text))
                .collect();
            assert_eq!(texts, expected);
        };
        check("default-src x", &["default-src x"]);
        check("a $NONCE b $NONCE", &["a ", " b ", ""]);
    }
}
