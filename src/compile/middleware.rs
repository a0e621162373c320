//! Options of frontends and entry points become the steps of `frontend/middleware/`. Spec frontends 2 to 9.
//!
//! Owns the order of the steps and what is wrong with a written one: the frontend is left out, or the process does not
//! start, since leaving out the step alone would serve whom it keeps out.
//! Read next: `frontend/middleware/mod.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::redirect::{self, Target};
use super::template::Expressions;
use super::{World, auth, headers};
use crate::backend::key::Source;
use crate::config::{Place, dynamic, entrypoint};
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::client_certificate::{ClientCertificate, Infos, Name};
use crate::frontend::middleware::rate_limit::Rate;
use crate::frontend::middleware::redirect::Restoration;
use crate::frontend::middleware::white_list::WhiteList;

/// Where and why a step cannot be made.
pub(super) type Refusal = (Place, String);

/// The steps of a frontend, in the order of spec frontends 2.2.
pub(super) fn of_frontend(
    written: &dynamic::Frontend,
    world: &World,
    restoration: Restoration,
    expressions: &mut Expressions,
    surroundings: &mut dyn auth::Surroundings,
) -> Result<Box<[Middleware]>, Refusal> {
    let white_list = white_list(
        written.white_list.as_ref(),
        &written.whitelist_source_range,
        &written.place,
    )?;
    let redirect = match &written.redirect {
        Some(redirect) => redirect::of_frontend(redirect, world, restoration, expressions)?,
        None => None,
    };
    let headers = match &written.headers {
        Some(headers) => headers::of_frontend(headers)?,
        None => None,
    };
    let old_basic = auth::old_basic(&written.basic_auth, &written.place)?;
    let client_certificate = written
        .pass_tls_client_cert
        .as_ref()
        .and_then(client_certificate);
    let auth = match &written.auth {
        Some(auth) => Some(auth::step(auth, surroundings)?),
        None => None,
    };
    let steps = [
        white_list,
        redirect,
        headers,
        old_basic,
        client_certificate,
        auth,
    ];
    Ok(steps.into_iter().flatten().collect())
}

/// The steps of an entry point, in the order of spec frontends 2.1.
pub(super) fn of_entry_point(
    written: &entrypoint::EntryPoint,
    targets: &BTreeMap<String, Target>,
    surroundings: &mut dyn auth::Surroundings,
) -> Result<Box<[Middleware]>, Refusal> {
    let redirect = match &written.redirect {
        Some(redirect) => redirect::of_entry_point(redirect, targets)?,
        None => None,
    };
    let white_list = white_list(
        written.white_list.as_ref(),
        &written.whitelist_source_range,
        &written.place,
    )?;
    let auth = match &written.auth {
        Some(auth) => Some(auth::step(auth, surroundings)?),
        None => None,
    };
    Ok([redirect, auth, white_list].into_iter().flatten().collect())
}

/// What servers are told of certificates, if anything.
fn client_certificate(written: &dynamic::PassTlsClientCert) -> Option<Middleware> {
    let name = |name: &dynamic::DistinguishedName| Name {
        domain_component: name.domain_component,
        country: name.country,
        province: name.province,
        locality: name.locality,
        organization: name.organization,
        serial_number: name.serial_number,
        common_name: name.common_name,
    };
    let step = ClientCertificate {
        pem: written.pem,
        infos: written.infos.as_ref().map(|infos| Infos {
            subject: infos.subject.as_ref().map(name),
            issuer: infos.issuer.as_ref().map(name),
            not_before: infos.not_before,
            not_after: infos.not_after,
            sans: infos.sans,
        }),
    };
    (step != ClientCertificate::default()).then(|| Middleware::ClientCertificate(Box::new(step)))
}

/// The old form counts only where the new one names nobody.
fn white_list(
    written: Option<&dynamic::WhiteList>,
    old: &[String],
    place: &Place,
) -> Result<Option<Middleware>, Refusal> {
    let (texts, use_x_forwarded_for, place) = match written {
        Some(list) if !list.source_range.is_empty() => {
            (&*list.source_range, list.use_x_forwarded_for, &list.place)
        }
        _ if !old.is_empty() => (old, false, place),
        _ => return Ok(None),
    };
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        networks.push(network(text).ok_or_else(|| {
            let why = format!(
                "whiteList: {text:?} is neither an IP address nor a network such as 10.0.0.0/8"
            );
            (place.clone(), why)
        })?);
    }
    Ok(Some(Middleware::WhiteList(WhiteList::new(
        networks,
        use_x_forwarded_for,
    ))))
}

/// What a rate limit counts by, and its rates in the order of their names.
pub(super) fn rates(written: &dynamic::RateLimit) -> Result<(Source, Vec<Rate>), Refusal> {
    let refuse = |why: String| (written.place.clone(), format!("ratelimit: {why}"));
    let source = Source::parse(&written.extractor_func).ok_or_else(|| {
        refuse(format!(
            "unsupported limiting variable: '{}'",
            written.extractor_func
        ))
    })?;
    let mut rates = Vec::with_capacity(written.rate_set.len());
    for (name, rate) in &written.rate_set {
        let made = match (u64::try_from(rate.average), u64::try_from(rate.burst)) {
            (Ok(average), Ok(burst)) => Rate::new(rate.period, average, burst),
            _ => None,
        };
        rates.push(made.ok_or_else(|| {
            refuse(format!(
                "rateSet.{name}: period, average and burst must be above zero"
            ))
        })?);
    }
    Ok((source, rates))
}

/// A network, or one address as a network of its own.
pub(super) fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::auth_server::Address;
    use super::*;
    use crate::frontend::middleware::auth::digest::Nonces;
    use crate::frontend::middleware::auth::forward::AuthServerId;

    #[test]
    fn trust_takes_networks_and_single_addresses() {
        let check = |text: &str, expected: Option<&str>| {
            let found = network(text).map(|network| network.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("10.1.2.3", Some("10.1.2.3/32"));
        check("::1", Some("::1/128"));
        check("10.0.0.0/33", None);
        check("somewhere", None);
        check("", None);
    }

    /// The options of a frontend as TOML, and its steps or why it has none.
    #[track_caller]
    fn check(toml: &str, expected: Result<&[&str], &str>) {
        let text = format!("[frontends.f]\n{toml}");
        let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
        let target = |port| Target {
            is_tls: false,
            port,
        };
        let world = World {
            targets: BTreeMap::from([("other".to_owned(), target(81))]),
            ..World::default()
        };
        let found = of_frontend(
            &dynamic.frontends["f"],
            &world,
            Restoration::Untouched,
            &mut Expressions::default(),
            &mut Nothing,
        );
        let found = found
            .as_ref()
            .map(|steps| steps.iter().map(kind).collect::<Vec<_>>())
            .map_err(|(place, why)| format!("{place}: {why}"));
        let found = found.as_deref().map_err(String::as_str);
        assert_eq!(found, expected, "{toml}");
    }

    /// There are no files, and no other servers.
    struct Nothing;

    impl auth::Surroundings for Nothing {
        fn read(&self, _: &str) -> Option<Result<Vec<u8>, String>> {
            None
        }

        fn nonces(&mut self) -> Arc<Nonces> {
            Arc::default()
        }

        fn server(
            &mut self,
            _: &dynamic::AuthForward,
            _: &Address,
        ) -> Result<AuthServerId, String> {
            Err("nobody is there".to_owned())
        }
    }

    fn kind(step: &Middleware) -> &'static str {
        match step {
            Middleware::WhiteList(_) => "white list",
            Middleware::Redirect(_) => "redirect",
            Middleware::Headers(_) => "headers",
            Middleware::Basic(_) => "basic",
            Middleware::Digest(_) => "digest",
            Middleware::Forward(_) => "forward",
            Middleware::ClientCertificate(_) => "client certificate",
        }
    }

    #[test]
    fn rate_limits() {
        let check = |toml: &str, expected: Result<usize, &str>| {
            let text = format!("[frontends.f.ratelimit]\n{toml}");
            let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
            let found = rates(dynamic.frontends["f"].ratelimit.as_ref().expect("written"));
            let found = found
                .map(|(_, rates)| rates.len())
                .map_err(|(place, why)| format!("{place}: {why}"));
            assert_eq!(found, expected.map_err(str::to_owned), "{toml}");
        };
        let rate = |average: i64| {
            format!(
                "extractorFunc = 'client.ip'\n[frontends.f.ratelimit.rateSet.a]\nperiod = '1s'\naverage = {average}\nburst = 1"
            )
        };
        check("extractorFunc = 'client.ip'", Ok(0));
        check(&rate(1), Ok(1));
        check(
            "",
            Err("f:1:14: ratelimit: unsupported limiting variable: ''"),
        );
        for average in [0, -1] {
            check(
                &rate(average),
                Err("f:1:14: ratelimit: rateSet.a: period, average and burst must be above zero"),
            );
        }
    }

    #[test]
    fn redirects() {
        check("[frontends.f.redirect]\npermanent = true", Ok(&[]));
        check("redirect.entryPoint = 'other'", Ok(&["redirect"]));
        check(
            "redirect.entryPoint = 'other'\nredirect.regex = '('",
            Ok(&["redirect"]),
        );
        check(
            "redirect.entryPoint = 'none'\nwhiteList.sourceRange = ['::1']",
            Err("f:2:1: redirect: there is no entry point 'none'"),
        );
        check(
            "redirect.regex = 'a'\nredirect.replacement = '{{ .Request.Host }}/$1'\nwhiteList.sourceRange = ['::1']",
            Ok(&["white list", "redirect"]),
        );
        check(
            "[frontends.f.redirect]\nregex = '('",
            Err("f:2:14: redirect: '(': bad regular expression: unclosed group"),
        );
        check(
            "[frontends.f.redirect]\nregex = 'a'\nreplacement = '{{.Request.Secret}}'",
            Err(
                "f:2:14: redirect: '{{.Request.Secret}}' is not one of {{.Request.Host}}, {{.Request.Method}}, \
                 {{.Request.URL.Path}}, {{.Request.URL.RawQuery}}, {{.Request.RequestURI}}, {{.Request.Header.Get \"X\"}}",
            ),
        );
    }

    #[test]
    fn white_lists() {
        check("backend = 'b'", Ok(&[]));
        check("[frontends.f.whiteList]", Ok(&[]));
        check("whiteList.useXForwardedFor = true", Ok(&[]));
        check(
            "whiteList.sourceRange = ['10.0.0.0/8']",
            Ok(&["white list"]),
        );
        check("whitelistSourceRange = ['::1']", Ok(&["white list"]));
        check(
            "whitelistSourceRange = ['junk']\nwhiteList.sourceRange = ['::1']",
            Ok(&["white list"]),
        );
        check("[frontends.f.passTLSClientCert]", Ok(&[]));
        check(
            "passTLSClientCert.pem = true\nbasicAuth = ['a:b']\nauth.basic.users = []\nheaders.frameDeny = true",
            Ok(&["headers", "basic", "client certificate", "basic"]),
        );
        check(
            "[frontends.f.whiteList]\nsourceRange = ['::1', '10.0.0.0/33']",
            Err(
                "f:2:14: whiteList: \"10.0.0.0/33\" is neither an IP address nor a network such as 10.0.0.0/8",
            ),
        );
        check(
            "whitelistSourceRange = ['']",
            Err(
                "f:1:12: whiteList: \"\" is neither an IP address nor a network such as 10.0.0.0/8",
            ),
        );
    }
}
