//! The text form of an entry point: `--entryPoints='Name:https Address::443 TLS'`. Spec static-config 5.
//!
//! Owns the keys of that form and which option each one is. Never decides what an option does.
//! Read next: `entrypoint.rs`.

use super::flags::FlagError;
use super::spelling::nearest;
use super::tree::{Data, Node};
use super::units::{Diagnostic, Place};

/// What the text after a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    /// True for `true`, `on` and `enable` in any case; anything else, also nothing, is false.
    Switch,
    /// Items separated by `,`.
    Items,
    /// `cert,key` pairs separated by `;`, or nothing.
    Pairs,
}

/// Each key, the option it sets, and its shape.
pub(super) const KEYS: &[(&str, &str, Shape)] = &[
    ("Name", "", Shape::Text),
    ("Address", "address", Shape::Text),
    ("TLS", "tls", Shape::Pairs),
    ("TLS.MinVersion", "tls.minVersion", Shape::Text),
    ("TLS.CipherSuites", "tls.cipherSuites", Shape::Items),
    ("TLS.SniStrict", "tls.sniStrict", Shape::Switch),
    (
        "TLS.DefaultCertificate.Cert",
        "tls.defaultCertificate.certFile",
        Shape::Text,
    ),
    (
        "TLS.DefaultCertificate.Key",
        "tls.defaultCertificate.keyFile",
        Shape::Text,
    ),
    ("CA", "tls.clientCA.files", Shape::Items),
    ("CA.Optional", "tls.clientCA.optional", Shape::Switch),
    ("Redirect.EntryPoint", "redirect.entryPoint", Shape::Text),
    ("Redirect.Regex", "redirect.regex", Shape::Text),
    ("Redirect.Replacement", "redirect.replacement", Shape::Text),
    ("Redirect.Permanent", "redirect.permanent", Shape::Switch),
    ("Compress", "compress", Shape::Switch),
    (
        "WhiteList.SourceRange",
        "whiteList.sourceRange",
        Shape::Items,
    ),
    (
        "WhiteList.UseXForwardedFor",
        "whiteList.useXForwardedFor",
        Shape::Switch,
    ),
    ("WhiteListSourceRange", "whitelistSourceRange", Shape::Items),
    (
        "ProxyProtocol.TrustedIPs",
        "proxyProtocol.trustedIPs",
        Shape::Items,
    ),
    (
        "ProxyProtocol.Insecure",
        "proxyProtocol.insecure",
        Shape::Switch,
    ),
    (
        "ForwardedHeaders.TrustedIPs",
        "forwardedHeaders.trustedIPs",
        Shape::Items,
    ),
    (
        "ForwardedHeaders.Insecure",
        "forwardedHeaders.insecure",
        Shape::Switch,
    ),
    ("Auth.Basic.Users", "auth.basic.users", Shape::Items),
    (
        "Auth.Basic.RemoveHeader",
        "auth.basic.removeHeader",
        Shape::Switch,
    ),
    ("Auth.Digest.Users", "auth.digest.users", Shape::Items),
    (
        "Auth.Digest.RemoveHeader",
        "auth.digest.removeHeader",
        Shape::Switch,
    ),
    ("Auth.HeaderField", "auth.headerField", Shape::Text),
    ("Auth.Forward.Address", "auth.forward.address", Shape::Text),
    (
        "Auth.Forward.AuthResponseHeaders",
        "auth.forward.authResponseHeaders",
        Shape::Items,
    ),
    (
        "Auth.Forward.TrustForwardHeader",
        "auth.forward.trustForwardHeader",
        Shape::Switch,
    ),
    ("Auth.Forward.TLS.CA", "auth.forward.tls.ca", Shape::Text),
    (
        "Auth.Forward.TLS.CAOptional",
        "auth.forward.tls.caOptional",
        Shape::Switch,
    ),
    (
        "Auth.Forward.TLS.Cert",
        "auth.forward.tls.cert",
        Shape::Text,
    ),
    ("Auth.Forward.TLS.Key", "auth.forward.tls.key", Shape::Text),
    (
        "Auth.Forward.TLS.InsecureSkipVerify",
        "auth.forward.tls.insecureSkipVerify",
        Shape::Switch,
    ),
];

/// An entry point as its text says: its name, and the section it stands for.
#[derive(Debug)]
pub(super) struct Compact {
    pub(super) name: String,
    pub(super) node: Node,
}

/// Reads one entry point. `typed` is the flag, for places.
///
/// # Errors
/// There is no name, or certificates are not given in pairs.
pub(super) fn parse(
    text: &str,
    typed: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Compact, FlagError> {
    let items: Vec<(&str, &str)> = text
        .split_whitespace()
        .map(|item| item.split_once(':').unwrap_or((item, "")))
        .collect();
    let name = items
        .iter()
        .rev()
        .find(|(key, _)| key.eq_ignore_ascii_case("Name"))
        .map(|(_, name)| *name);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(FlagError(
            "an entry point needs a name: 'Name:http Address::80'".to_owned(),
        ));
    };
    let place = Place::Flag(format!("{typed}=Name:{name}").into());
    let mut node = Node::table(&place);
    let mut warn = |message: String| {
        diagnostics.push(Diagnostic {
            place: place.clone(),
            message,
        })
    };
    // A TLS key alone does not make an entry point speak TLS.
    let tls = items.iter().any(|(key, _)| key.eq_ignore_ascii_case("TLS"));
    for (key, value) in items {
        let Some(&(key, option, shape)) = KEYS
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(key))
        else {
            let hint = nearest(key, KEYS.iter().map(|(known, ..)| *known));
            let hint = hint.map_or_else(String::new, |known| format!(", did you mean `{known}`?"));
            warn(format!("unknown key `{key}`, ignored{hint}"));
            continue;
        };
        if option.starts_with("tls.") && !tls {
            warn(format!("`{key}` is ignored without `TLS`"));
            continue;
        }
        let path: Vec<&str> = option.split('.').collect();
        match shape {
            Shape::Text if option.is_empty() => {}
            Shape::Text => node.set(&path, Node::word(&place, value)),
            Shape::Switch => {
                let on = ["true", "on", "enable"]
                    .iter()
                    .any(|word| value.eq_ignore_ascii_case(word));
                node.set(&path, Node::new(&place, Data::Bool(on)));
            }
            Shape::Items => {
                let items = value.split(',').filter(|item| !item.is_empty());
                node.set(
                    &path,
                    Node::list(&place, items.map(|item| Node::word(&place, item)).collect()),
                );
            }
            Shape::Pairs => {
                let pairs = value.split(';').filter(|pair| !pair.is_empty());
                let pairs: Result<Vec<Node>, FlagError> =
                    pairs.map(|pair| certificate(pair, &place)).collect();
                node.set(&["tls", "certificates"], Node::list(&place, pairs?));
            }
        }
    }
    let trust = |key: &str| matches!(node.get(&["auth", "forward", "tls", key]), Some(node) if !is_empty(node));
    if node.get(&["auth", "forward", "tls"]).is_some()
        && !(trust("cert") && trust("key"))
        && !matches!(
            node.get(&["auth", "forward", "tls", "insecureSkipVerify"]),
            Some(Node {
                data: Data::Bool(true),
                ..
            })
        )
    {
        warn(
            "`Auth.Forward.TLS` is ignored without both `Cert` and `Key`, or `InsecureSkipVerify`"
                .to_owned(),
        );
        remove(&mut node, &["auth", "forward"], "tls");
    }
    // A redirect needs a target, as in a file that has no such section.
    if node.get(&["redirect", "entryPoint"]).is_none() && node.get(&["redirect", "regex"]).is_none()
    {
        remove(&mut node, &[], "redirect");
    }
    Ok(Compact {
        name: name.to_owned(),
        node,
    })
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.data, Data::Word(word) if word.is_empty())
}

fn remove(node: &mut Node, path: &[&str], name: &str) {
    let Some(Node {
        data: Data::Table(table),
        place,
    }) = node.get(path)
    else {
        return;
    };
    let mut table = table.clone();
    table.entries.retain(|entry| entry.name != name);
    let place = place.clone();
    node.set(path, Node::new(&place, Data::Table(table)));
}

fn certificate(pair: &str, place: &Place) -> Result<Node, FlagError> {
    let (cert, key) = match pair.split_once(',') {
        Some((cert, key)) if !cert.is_empty() && !key.is_empty() && !key.contains(',') => {
            (cert, key)
        }
        _ => return Err(FlagError(format!("bad certificates format: {pair}"))),
    };
    let mut node = Node::table(place);
    node.set(&["certFile"], Node::word(place, cert));
    node.set(&["keyFile"], Node::word(place, key));
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::entrypoint::EntryPoint;
    use crate::config::option::{Value, kind_at};

    /// The entry point a text stands for, as TOML of the same meaning says it, and what is said about it.
    fn check(text: &str, toml: &str, expected: &[&str]) {
        let mut diagnostics = Vec::new();
        let compact = parse(text, "--entryPoints", &mut diagnostics).expect(text);
        let entry_point = EntryPoint::read(&compact.node).expect(text);
        let same =
            EntryPoint::read(&crate::config::toml::parse("f", toml).expect(toml)).expect(toml);
        assert_eq!(entry_point, same, "{text}");
        assert_eq!(compact.name, "a");
        let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(diagnostics, expected, "{text}");
    }

    #[test]
    fn the_text_form_means_the_same_as_a_section() {
        check("Name:a Address::80", "address = ':80'", &[]);
        check(
            "name:a  ADDRESS:127.0.0.1:21702",
            "address = '127.0.0.1:21702'",
            &[],
        );
        check("Name:a Address:[::1]:80", "address = '[::1]:80'", &[]);
        check("Name:a TLS", "tls.certificates = []", &[]);
        check(
            "Name:a TLS:/a.crt,/a.key;/b.crt,/b.key",
            "[[tls.certificates]]\ncertFile = '/a.crt'\nkeyFile = '/a.key'\n\
             [[tls.certificates]]\ncertFile = '/b.crt'\nkeyFile = '/b.key'\n",
            &[],
        );
        check(
            "Name:a TLS.MinVersion:VersionTLS12 TLS.CipherSuites:A,B TLS.SniStrict:true TLS CA:/ca CA.Optional:on \
             TLS.DefaultCertificate.Cert:/c TLS.DefaultCertificate.Key:/k",
            "[tls]\nminVersion = 'VersionTLS12'\ncipherSuites = ['A', 'B']\nsniStrict = true\n\
             defaultCertificate = { certFile = '/c', keyFile = '/k' }\n\
             clientCA = { files = ['/ca'], optional = true }",
            &[],
        );
        check(
            "Name:a TLS.MinVersion:VersionTLS12 CA:/ca",
            "",
            &[
                "--entryPoints=Name:a: `TLS.MinVersion` is ignored without `TLS`",
                "--entryPoints=Name:a: `CA` is ignored without `TLS`",
            ],
        );
        check(
            "Name:a Redirect.EntryPoint:b Redirect.Permanent:true",
            "redirect = { entryPoint = 'b', permanent = true }",
            &[],
        );
        check(
            "Name:a Redirect.Regex:^http://(.*) Redirect.Replacement:https://$1",
            "redirect = { regex = '^http://(.*)', replacement = 'https://$1' }",
            &[],
        );
        check("Name:a Redirect.Permanent:true", "", &[]);
        check("Name:a Compress:ON", "compress = true", &[]);
        check("Name:a Compress:enable", "compress = true", &[]);
        check("Name:a Compress", "", &[]);
        check("Name:a Compress:yes", "", &[]);
        check(
            "Name:a WhiteList.SourceRange:10.0.0.0/8,1.2.3.4 WhiteList.UseXForwardedFor:true",
            "whiteList = { sourceRange = ['10.0.0.0/8', '1.2.3.4'], useXForwardedFor = true }",
            &[],
        );
        check(
            "Name:a WhiteListSourceRange:1.2.3.4",
            "whitelistSourceRange = ['1.2.3.4']",
            &[],
        );
        check(
            "Name:a ProxyProtocol",
            "",
            &["--entryPoints=Name:a: unknown key `ProxyProtocol`, ignored"],
        );
        check(
            "Name:a ProxyProtocol.TrustedIPs:1.2.3.4",
            "proxyProtocol.trustedIPs = ['1.2.3.4']",
            &[],
        );
        check(
            "Name:a ForwardedHeaders.TrustedIPs:10.0.0.1/24,20.0.0.1",
            "forwardedHeaders = { trustedIPs = ['10.0.0.1/24', '20.0.0.1'] }",
            &[],
        );
        check(
            "Name:a ForwardedHeaders.TrustedIPs:1.2.3.4 ForwardedHeaders.Insecure:true",
            "forwardedHeaders = { insecure = true, trustedIPs = ['1.2.3.4'] }",
            &[],
        );
        check(
            "Name:a ForwardedHeaders.Insecure",
            "forwardedHeaders = { insecure = false }",
            &[],
        );
        check(
            "Name:a Auth.Basic.Users:u:h,v:i Auth.Basic.RemoveHeader:true Auth.HeaderField:X-User",
            "[auth]\nheaderField = 'X-User'\nbasic = { users = ['u:h', 'v:i'], removeHeader = true }",
            &[],
        );
        check(
            "Name:a Auth.Digest.Users:u:r:h",
            "auth.digest.users = ['u:r:h']",
            &[],
        );
        check(
            "Name:a Auth.Forward.Address:http://x/y Auth.Forward.AuthResponseHeaders:A,B \
             Auth.Forward.TrustForwardHeader:true Auth.Forward.TLS.Cert:/c Auth.Forward.TLS.Key:/k",
            "[auth.forward]\naddress = 'http://x/y'\nauthResponseHeaders = ['A', 'B']\ntrustForwardHeader = true\n\
             tls = { cert = '/c', key = '/k' }",
            &[],
        );
        check(
            "Name:a Auth.Forward.Address:x Auth.Forward.TLS.CA:/ca",
            "auth.forward.address = 'x'",
            &[
                "--entryPoints=Name:a: `Auth.Forward.TLS` is ignored without both `Cert` and `Key`, or \
               `InsecureSkipVerify`",
            ],
        );
        check(
            "Name:a Adress::80",
            "",
            &["--entryPoints=Name:a: unknown key `Adress`, ignored, did you mean `Address`?"],
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let fails = |text: &str, message: &str| {
            assert_eq!(
                parse(text, "--entryPoints", &mut Vec::new())
                    .expect_err(text)
                    .to_string(),
                message
            );
        };
        fails(
            "Address::80",
            "an entry point needs a name: 'Name:http Address::80'",
        );
        fails(
            "Name Address::80",
            "an entry point needs a name: 'Name:http Address::80'",
        );
        fails("Name:a TLS:/a.crt", "bad certificates format: /a.crt");
        fails("Name:a TLS:/a,/b,/c", "bad certificates format: /a,/b,/c");
    }

    #[test]
    fn every_key_sets_an_option_that_exists() {
        for (key, option, _) in KEYS.iter().filter(|(_, option, _)| !option.is_empty()) {
            assert!(
                kind_at(EntryPoint::OPTIONS, option).is_some(),
                "{key}: no option {option}"
            );
        }
    }
}
