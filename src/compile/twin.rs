//! The slow twin of the trie: a linear scan of rules in priority order, in tests only.
//!
//! Shares with the fast way the grammar and nothing else: every pattern, literal or not, becomes one plain expression
//! here, and every request is taken apart into owned text first. The property at the end keeps the two equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use regex::Regex;

use super::rule::{self, Matcher};
use super::tests::{answer, dynamic};
use super::{Memory, World, compile};
use crate::frontend::Scratch;
use crate::frontend::example::Request;

/// What the request comes to: the name of a frontend, `301 <location>` or `404`.
fn scan(rules: &[(String, i64)], keep_trailing_slash: bool, request: &Request) -> String {
    let name = |at: usize| format!("f{at:03}");
    let mut order: Vec<usize> = (0..rules.len()).collect();
    let priority = |(rule, priority): &(String, i64)| {
        if *priority > 0 {
            *priority
        } else {
            rule.len() as i64
        }
    };
    order.sort_by(|a, b| {
        priority(&rules[*b])
            .cmp(&priority(&rules[*a]))
            .then(name(*a).cmp(&name(*b)))
    });

    for at in order {
        let Ok(rule) = rule::parse(&rules[at].0) else {
            continue;
        };
        let says: Vec<Option<bool>> = rule
            .matchers
            .iter()
            .map(|matcher| test(matcher, keep_trailing_slash, request))
            .collect();
        if says.contains(&None) {
            continue;
        }
        if !says.contains(&Some(true)) {
            return name(at);
        }
        let content = rule
            .matchers
            .iter()
            .zip(&says)
            .any(|(m, s)| matches!(m, Matcher::Path(_)) && *s == Some(false));
        if !content {
            let (path, query) = request
                .target
                .split_once('?')
                .map_or((&*request.target, None), |(p, q)| (p, Some(q)));
            let path = match path.strip_suffix('/').or_else(|| path.strip_suffix("%2F")) {
                Some(path) => path.to_owned(),
                None => format!("{path}/"),
            };
            let dot = if request.target.starts_with("//") {
                "/."
            } else {
                ""
            };
            return format!(
                "301 {dot}{path}{}",
                query.map(|query| format!("?{query}")).unwrap_or_default()
            );
        }
    }
    "404".to_owned()
}

/// `None` is no, `Some(true)` is yes with another last slash.
fn test(matcher: &Matcher, keep_trailing_slash: bool, request: &Request) -> Option<bool> {
    let (raw, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let path = decoded(raw, false);
    let plain = |yes: bool| yes.then_some(false);
    match matcher {
        Matcher::Host(names) => {
            let authority = &request.authority;
            let host = match authority.rsplit_once(':') {
                None => authority,
                Some((host, _)) if host.starts_with('[') && host.ends_with(']') => {
                    &host[1..host.len() - 1]
                }
                Some((host, _)) if !host.contains(':') => host,
                Some(_) => authority,
            };
            plain(names.iter().any(|name| *name == host.to_lowercase()))
        }
        Matcher::HostRegexp(texts) => {
            let host = request.authority.split(':').next().unwrap_or_default();
            plain(
                texts
                    .iter()
                    .any(|text| pattern(text, "[^.]+", "(?i)^", "$").is_match(host)),
            )
        }
        Matcher::Path(texts) => texts.iter().find_map(|text| {
            if keep_trailing_slash {
                return plain(pattern(text, "[^/]+", "^", "$").is_match(&path));
            }
            let wanted = text.ends_with('/');
            let bare = text.strip_suffix('/').unwrap_or(text);
            let fits = pattern(bare, "[^/]+", "^", "/?$").is_match(&path);
            fits.then_some(wanted != path.ends_with('/') && path != "/")
        }),
        Matcher::PathPrefix(texts) | Matcher::PathPrefixTemplate(texts) => plain(
            texts
                .iter()
                .any(|text| pattern(text, "[^/]+", "^", "").is_match(&path)),
        ),
        Matcher::Method(methods) => plain(methods.contains(&request.method)),
        Matcher::Headers(pairs) => plain(pairs.iter().all(|(name, value)| {
            request
                .fields
                .iter()
                .any(|(n, v)| n.eq_ignore_ascii_case(name) && (value.is_empty() || v == value))
        })),
        Matcher::HeadersRegexp(pairs) => plain(pairs.iter().all(|(name, value)| {
            let regex = Regex::new(value).expect("a generated expression");
            request
                .fields
                .iter()
                .any(|(n, v)| n.eq_ignore_ascii_case(name) && regex.is_match(v))
        })),
        Matcher::Query(pairs) => {
            let mut found: BTreeMap<String, String> = BTreeMap::new();
            for pair in query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                found
                    .entry(decoded(key, true))
                    .or_insert_with(|| decoded(value, true));
            }
            plain(pairs.iter().all(|(key, value)| {
                let value = if value.is_empty() { "{any}" } else { value };
                found
                    .get(key)
                    .is_some_and(|found| pattern(value, ".*", "^", "$").is_match(found))
            }))
        }
    }
}

fn decoded(text: &str, plus: bool) -> String {
    let text = if plus {
        text.replace('+', " ")
    } else {
        text.to_owned()
    };
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push(char::from(
            u8::from_str_radix(&part[..2], 16).expect("generated escapes are right"),
        ));
        out.push_str(&part[2..]);
    }
    out
}

fn pattern(template: &str, default: &str, before: &str, after: &str) -> Regex {
    let variable = Regex::new(r"\{[a-z]+(?::([^{}]*))?\}").expect("an expression");
    let mut pattern = before.to_owned();
    let mut copied = 0;
    for found in variable.captures_iter(template) {
        let whole = found.get(0).expect("the whole match");
        pattern.push_str(&regex::escape(&template[copied..whole.start()]));
        pattern.push_str(&format!(
            "({})",
            found.get(1).map_or(default, |group| group.as_str())
        ));
        copied = whole.end();
    }
    pattern.push_str(&regex::escape(&template[copied..]));
    pattern.push_str(after);
    Regex::new(&pattern).expect("a generated template")
}

fn some_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    subsequence(texts, 1..=2)
        .prop_shuffle()
        .prop_map(|texts| texts.join(","))
}

fn piece() -> impl Strategy<Value = String> {
    const HOSTS: &[&str] = &["a.test", "b.a.test", "A.Test", "c.test", "::1", "a.test."];
    const HOST_TEMPLATES: &[&str] = &[
        "{x}.test",
        "{x:[a-z]+}.a.test",
        "a.test",
        "{x:.*}",
        "b{x:.?}",
        "b.{x}.Test",
    ];
    const PATHS: &[&str] = &[
        "/",
        "/a",
        "/a/",
        "/ab",
        "/a/b",
        "/a/b/",
        "/{x}",
        "/a/{x}",
        "/a/{x:.*}",
        "/{x:a|ab}/",
        "/a b",
        "/{x:[a-c]+}/{y}",
    ];
    const METHODS: &[&str] = &["GET", "post", "PUT"];
    const HEADERS: &[&str] = &["X-A,1", "x-a,2", "X-B,1", "X-B, ", "X-C,"];
    const QUERIES: &[&str] = &["a=1", "a=", "b={x:[0-9]+}", "a=1 2"];
    prop_oneof![
        4 => some_of(HOSTS).prop_map(|list| format!("Host:{list}")),
        2 => some_of(HOST_TEMPLATES).prop_map(|list| format!("HostRegexp:{list}")),
        3 => some_of(PATHS).prop_map(|list| format!("Path:{list}")),
        3 => some_of(PATHS).prop_map(|list| format!("PathPrefix:{list}")),
        1 => some_of(PATHS).prop_map(|list| format!("PathPrefixStripRegex:{list}")),
        1 => some_of(METHODS).prop_map(|list| format!("Method:{list}")),
        1 => some_of(HEADERS).prop_map(|list| format!("Headers:{list}")),
        1 => select(&["X-A,^1", "x-b,.2"][..]).prop_map(|list| format!("HeadersRegexp:{list}")),
        1 => some_of(QUERIES).prop_map(|list| format!("Query:{list}")),
    ]
}

fn rules() -> impl Strategy<Value = Vec<(String, i64)>> {
    let rule = prop::collection::vec(piece(), 1..4).prop_map(|pieces| pieces.join(";"));
    prop::collection::vec((rule, prop_oneof![4 => Just(0), 1 => -1..40_i64]), 1..12)
}

fn request() -> impl Strategy<Value = Request> {
    let authority = select(
        &[
            "a.test",
            "A.TEST:80",
            "b.a.test",
            "c.test",
            "[::1]:80",
            "[::1]",
            "x.y.test",
            "bb",
            "a.test.",
            "z",
            ".test",
        ][..],
    );
    let path = prop::collection::vec(
        select(&["a", "b", "ab", "c", "", "%61", "a%20b", "a%2Fb"][..]),
        1..4,
    )
    .prop_map(|parts| format!("/{}", parts.join("/")));
    let query = select(
        &[
            "", "?a=1", "?a=2&a=1", "?b=12&a", "?a=1+2", "?%61=%31", "?b=x&b=1",
        ][..],
    );
    let field = (
        select(&["X-A", "X-B", "x-a"][..]),
        select(&["1", "2", "12"][..]),
    );
    (
        select(&["GET", "POST", "get"][..]),
        authority,
        path,
        query,
        prop::collection::vec(field, 0..3),
    )
        .prop_map(|(method, authority, path, query, fields)| Request {
            method: method.to_owned(),
            authority: authority.to_owned(),
            target: format!("{path}{query}"),
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn lookup_equals_linear_scan(
        rules in rules(),
        keep_trailing_slash in any::<bool>(),
        requests in prop::collection::vec(request(), 16),
    ) {
        let names: Vec<String> = (0..rules.len()).map(|at| format!("f{at:03}")).collect();
        let frontends: Vec<(&str, &str, i64)> =
            names.iter().zip(&rules).map(|(name, (rule, priority))| (&**name, &**rule, *priority)).collect();
        let world = World {
            entry_points: vec!["http".to_owned()],
            default_entry_points: vec!["http".to_owned()],
            keep_trailing_slash,
            ..World::default()
        };
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(dynamic(&frontends)))]);
        let compiled = compile(&providers, &world, &mut Memory::default());
        let mut scratch = Scratch::default();
        for request in requests {
            let fast = answer(&compiled.snapshots[0], &request, &mut scratch);
            prop_assert_eq!(fast, scan(&rules, keep_trailing_slash, &request), "{:?}", request);
        }
    }
}
