//! Configuration written down: as the keys of a store, and as JSON for people.
//!
//! Owns the spelling of keys (spec kv-static 3 and 4.2, 5) and what is a secret. What is written reads back the same.
//! Never writes anything anywhere: it returns pairs and texts.
//! Read next: `keys.rs`, which reads them.

use super::dynamic::Dynamic;
use super::global::Global;
use super::option::{Value, Written};
use super::units::duration_text;

/// A key below the prefix with its value. One that ends in `/` marks a section and has no value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
}

impl KeyValue {
    /// The value as it may be shown to anybody who sees the terminal or the log.
    pub fn shown(&self) -> String {
        let names: Vec<&str> = self.key.split('/').collect();
        shown(&names, &self.value)
    }
}

/// Sections that have no marker: the first one that is written, and those that Traefik holds by value.
const UNMARKED: &[&str] = &[
    "",
    "lifecycle",
    "entrypoints/*/tls/certificates/*",
    "entrypoints/*/tls/clientca",
    "acme/domains/*",
    "backends/*/servers/*",
    "frontends/*/routes/*",
];

/// Texts of frontends and backends that mean something else where they are left out than where they are empty.
const WRITTEN_EMPTY: &[&str] = &[
    "backends/*/healthcheck/interval",
    "backends/*/maxconn/extractorfunc",
    "frontends/*/headers/customrequestheaders/*",
    "frontends/*/headers/customresponseheaders/*",
    "frontends/*/headers/sslproxyheaders/*",
    "backends/*/healthcheck/headers/*",
];

/// The keys of the static configuration in byte order, as `storeconfig` writes them. `is_there` says whether a section
/// that always has a value was written by the operator.
pub(super) fn static_keys(global: &Global, is_there: &dyn Fn(&str) -> bool) -> Vec<KeyValue> {
    let mut keys = Keys {
        style: Style::Static,
        found: Vec::new(),
    };
    let Written::Section(options) = global.written() else {
        unreachable!("the options of the program are a section");
    };
    for (name, written) in options {
        let always = !matches!(
            name,
            "respondingTimeouts" | "forwardingTimeouts" | "traefikLog" | "reactor" | "buffering"
        );
        // Rules of files are written themselves, so the section that names the files would only hide them.
        if name != "file" && (always || is_there(name)) {
            keys.below("", "", name, name, &written);
        }
    }
    // The accounts and certificates of that file are written themselves.
    keys.found.retain(|found| found.key != "acme/storagefile");
    keys.found.sort();
    keys.found
}

/// The keys of frontends, backends and certificates in byte order. `values_in_folders`: the store can hold a value and
/// further keys at one name.
pub fn dynamic_keys(dynamic: &Dynamic, values_in_folders: bool) -> Vec<KeyValue> {
    let mut keys = Keys {
        style: Style::Dynamic { values_in_folders },
        found: Vec::new(),
    };
    keys.walk("", "", &dynamic.written());
    keys.found.sort();
    keys.found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Key for key as Traefik 1.7 writes them.
    Static,
    /// So that it reads back the same: durations with their unit, nothing that is not there.
    Dynamic { values_in_folders: bool },
}

struct Keys {
    style: Style,
    found: Vec<KeyValue>,
}

impl Keys {
    /// `pattern` is the path with `*` for names and numbers.
    fn walk(&mut self, path: &str, pattern: &str, written: &Written) {
        match written {
            Written::Absent => {
                // Held by value, so it is never absent there.
                if pattern == "entrypoints/*/tls/clientca" {
                    self.push(format!("{path}/optional"), "false".to_owned());
                }
            }
            Written::Foreign => {}
            Written::Bool(value) => self.push(path.to_owned(), value.to_string()),
            Written::Integer(value) => self.push(path.to_owned(), value.to_string()),
            Written::Number(value) => self.push(path.to_owned(), value.to_string()),
            Written::Duration(value) => {
                let text = match self.style {
                    Style::Static => value.as_nanos().to_string(),
                    Style::Dynamic { .. } => duration_text(*value),
                };
                self.push(path.to_owned(), text);
            }
            Written::Text(value) => {
                let is_left_out = self.style != Style::Static
                    && value.is_empty()
                    && !WRITTEN_EMPTY.contains(&pattern);
                if !is_left_out {
                    let value = match self.style {
                        Style::Static => value.clone(),
                        Style::Dynamic { .. } => escaped(value),
                    };
                    self.push(path.to_owned(), value);
                }
            }
            Written::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.below(path, pattern, &index.to_string(), "*", item);
                }
            }
            Written::Map(entries) => {
                for (name, value) in entries {
                    let name = match self.style {
                        Style::Static => name.clone(),
                        Style::Dynamic { .. } => escaped(name),
                    };
                    self.below(path, pattern, &name, "*", value);
                }
            }
            Written::Section(options) => {
                if !UNMARKED.contains(&pattern) {
                    self.push(format!("{path}/"), String::new());
                }
                if pattern == "backends/*/loadbalancer/stickiness"
                    && self.style
                        == (Style::Dynamic {
                            values_in_folders: true,
                        })
                {
                    self.push(path.to_owned(), "true".to_owned());
                }
                for (name, value) in options {
                    self.below(path, pattern, name, name, value);
                }
            }
        }
    }

    fn below(&mut self, path: &str, pattern: &str, name: &str, step: &str, written: &Written) {
        // Names of options are lower case; names that are the operator's own stay as they are.
        let name = if step == "*" {
            name.to_owned()
        } else {
            name.to_ascii_lowercase()
        };
        let join = |path: &str, name: &str| match path {
            "" => name.to_owned(),
            _ => format!("{path}/{name}"),
        };
        let pattern = join(pattern, &step.to_ascii_lowercase());
        self.walk(&join(path, &name), &pattern, written);
    }

    fn push(&mut self, key: String, value: String) {
        self.found.push(KeyValue { key, value });
    }
}

/// The text whose reading gives `text` again: every backslash begins an escape, and no line end is cut off.
fn escaped(text: &str) -> String {
    if !text.contains('\\') && !text.ends_with('\n') {
        return text.to_owned();
    }
    let mut out = text.replace('\\', "\\\\");
    if text.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// A configuration as JSON, with secrets left out.
pub(super) fn json(section: &impl Value) -> serde_json::Value {
    json_of(&section.written(), &mut Vec::new(), &shown)
}

/// The same without anything that an operator chose: only names, numbers and switches.
pub(super) fn anonymous_json(section: &impl Value) -> serde_json::Value {
    json_of(&section.written(), &mut Vec::new(), &|names, value| {
        let name = names.last().copied().unwrap_or_default();
        if value.is_empty()
            || PUBLIC
                .iter()
                .any(|public| public.eq_ignore_ascii_case(name))
        {
            value.to_owned()
        } else {
            HIDDEN.to_owned()
        }
    })
}

/// Texts that say nothing about who runs the program: one of a few words, or a length of time.
const PUBLIC: &[&str] = &[
    "logLevel",
    "format",
    "minVersion",
    "keyType",
    "defaultMode",
    "pushInterval",
    "backend",
    "cores",
    "driver",
    "method",
    "samplingType",
    "protocol",
];

const HIDDEN: &str = "xxxx";

fn json_of(
    written: &Written,
    names: &mut Vec<String>,
    text: &dyn Fn(&[&str], &str) -> String,
) -> serde_json::Value {
    use serde_json::Value as Json;
    let mut below = |name: &str, written: &Written| {
        names.push(name.to_owned());
        let json = json_of(written, names, text);
        names.pop();
        json
    };
    match written {
        Written::Absent => Json::Null,
        Written::Foreign => Json::Object(serde_json::Map::new()),
        Written::Bool(value) => (*value).into(),
        Written::Integer(value) => (*value).into(),
        Written::Number(value) => (*value).into(),
        Written::Duration(value) => duration_text(*value).into(),
        Written::Text(value) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text(&names, value).into()
        }
        Written::List(items) => {
            let items = items.iter().enumerate();
            items
                .map(|(index, item)| below(&index.to_string(), item))
                .collect()
        }
        Written::Map(entries) => {
            let entries = entries.iter();
            Json::Object(
                entries
                    .map(|(name, value)| (name.clone(), below(name, value)))
                    .collect(),
            )
        }
        Written::Section(options) => {
            let there = options
                .iter()
                .filter(|(_, value)| !matches!(value, Written::Absent));
            Json::Object(
                there
                    .map(|(name, value)| ((*name).to_owned(), below(name, value)))
                    .collect(),
            )
        }
    }
}

/// A value without what it keeps secret. `names` is its path, in any case.
fn shown(names: &[&str], value: &str) -> String {
    let is =
        |name: &str, others: &[&str]| others.iter().any(|other| other.eq_ignore_ascii_case(name));
    let last = names.last().copied().unwrap_or_default();
    let above = names.iter().rev().nth(1).copied().unwrap_or_default();
    let is_secret = is(last, &["password"])
        || is(above, &["users", "basicAuth"])
        || value.contains("PRIVATE KEY-----");
    if value.is_empty() || !is_secret {
        return without_user(value);
    }
    HIDDEN.to_owned()
}

/// A URL without the user and the password that may be in it.
fn without_user(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else {
        return value.to_owned();
    };
    let authority = rest.find('/').map_or(rest, |end| &rest[..end]);
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{HIDDEN}@{}", &rest[at + 1..]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::load::{dynamic_from_toml, load, overlay};
    use crate::config::option::{Entry, Kind};
    use crate::config::tree::{Data, Node, Table};
    use crate::config::units::Place;
    use crate::config::{DynamicKeys, Pair, Problems};

    fn pairs(keys: &[KeyValue]) -> Vec<Pair<'_>> {
        keys.iter()
            .map(|found| Pair::new(&found.key, &found.value))
            .collect()
    }

    fn lines(keys: &[KeyValue]) -> String {
        keys.iter()
            .map(|found| format!("{}={}\n", found.key, found.value.replace('\n', "~")))
            .collect()
    }

    fn static_lines(toml: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(&path, toml).expect("written");
        let arguments = [
            "storeconfig".into(),
            format!("--configFile={}", path.display()).into(),
        ];
        let loaded = load(&arguments, &|_| None).expect("usable");
        lines(&loaded.static_keys().expect("usable"))
    }

    /// The dump of spec kv-static 5.1.
    #[test]
    fn the_guides_example_is_written_key_for_key() {
        let written = static_lines(
            r#"
            logLevel = "DEBUG"
            defaultEntryPoints = ["http", "https"]
            [entryPoints]
              [entryPoints.api]
                address = ":8081"
              [entryPoints.http]
              address = ":80"
              [entryPoints.https]
              address = ":443"
                [entryPoints.https.tls]
                  [[entryPoints.https.tls.certificates]]
                  certFile = "integration/fixtures/https/snitest.com.cert"
                  keyFile = "integration/fixtures/https/snitest.com.key"
                  [[entryPoints.https.tls.certificates]]
                  certFile = """-----BEGIN CERTIFICATE-----
                                  <cert file content>
                                  -----END CERTIFICATE-----"""
                  keyFile = """-----BEGIN PRIVATE KEY-----
                                  <key file content>
                                  -----END PRIVATE KEY-----"""
                [entryPoints.other-https]
                address = ":4443"
                  [entryPoints.other-https.tls]
            [consul]
              endpoint = "127.0.0.1:8500"
              watch = true
              prefix = "traefik"
            [api]
              entrypoint = "api"
            "#,
        );
        assert_eq!(
            written,
            "accesslogsfile=\nallowminweightzero=false\napi/=\napi/dashboard=true\napi/debug=false\napi/entrypoint=api\n\
             checknewversion=true\nconsul/=\nconsul/debugloggeneratedtemplate=false\nconsul/endpoint=127.0.0.1:8500\n\
             consul/filename=\nconsul/password=\nconsul/prefix=traefik\nconsul/templateversion=0\nconsul/trace=false\n\
             consul/username=\nconsul/watch=true\ndebug=false\ndefaultentrypoints/0=http\ndefaultentrypoints/1=https\n\
             entrypoints/api/=\nentrypoints/api/address=:8081\nentrypoints/api/compress=false\n\
             entrypoints/http/=\nentrypoints/http/address=:80\nentrypoints/http/compress=false\n\
             entrypoints/https/=\nentrypoints/https/address=:443\nentrypoints/https/compress=false\nentrypoints/https/tls/=\n\
             entrypoints/https/tls/certificates/0/certfile=integration/fixtures/https/snitest.com.cert\n\
             entrypoints/https/tls/certificates/0/keyfile=integration/fixtures/https/snitest.com.key\n\
             entrypoints/https/tls/certificates/1/certfile=-----BEGIN CERTIFICATE-----~                                  \
             <cert file content>~                                  -----END CERTIFICATE-----\n\
             entrypoints/https/tls/certificates/1/keyfile=-----BEGIN PRIVATE KEY-----~                                  \
             <key file content>~                                  -----END PRIVATE KEY-----\n\
             entrypoints/https/tls/clientca/optional=false\nentrypoints/https/tls/minversion=\n\
             entrypoints/https/tls/snistrict=false\n\
             entrypoints/other-https/=\nentrypoints/other-https/address=:4443\nentrypoints/other-https/compress=false\n\
             entrypoints/other-https/tls/=\nentrypoints/other-https/tls/clientca/optional=false\n\
             entrypoints/other-https/tls/minversion=\nentrypoints/other-https/tls/snistrict=false\n\
             gracetimeout=0\nhealthcheck/=\nhealthcheck/interval=30000000000\nidletimeout=0\ninsecureskipverify=false\n\
             keeptrailingslash=false\nlifecycle/gracetimeout=10000000000\nlifecycle/requestacceptgracetimeout=0\n\
             loglevel=DEBUG\nmaxidleconnsperhost=200\nprovidersthrottleduration=2000000000\nsendanonymoususage=false\n\
             traefiklogsfile=\n"
        );
        assert_eq!(written.lines().count(), 57);
    }

    /// Spec kv-static 5.2.
    #[test]
    fn larger_examples_are_written_key_for_key() {
        let check = |toml: &str, expected: &[&str]| {
            let plain = static_lines("");
            let written = static_lines(toml);
            let found: Vec<&str> = written
                .lines()
                .filter(|line| plain.lines().all(|other| other != *line))
                .collect();
            assert_eq!(found, expected);
        };
        check(
            "rootCAs = ['/etc/ca1.pem', '/etc/ca2.pem']\nconstraints = ['tag==api', 'tag!=us-*']",
            &[
                "constraints/0=tag==api",
                "constraints/1=tag!=us-*",
                "rootcas/0=/etc/ca1.pem",
                "rootcas/1=/etc/ca2.pem",
            ],
        );
        check("[retry]\nattempts = 3", &["retry/=", "retry/attempts=3"]);
        check(
            "[respondingTimeouts]\nreadTimeout = '5s'",
            &[
                "respondingtimeouts/=",
                "respondingtimeouts/idletimeout=180000000000",
                "respondingtimeouts/readtimeout=5000000000",
                "respondingtimeouts/writetimeout=0",
            ],
        );
        check(
            "[metrics.prometheus]\nbuckets = [0.1, 0.5]",
            &[
                "metrics/=",
                "metrics/prometheus/=",
                "metrics/prometheus/buckets/0=0.1",
                "metrics/prometheus/buckets/1=0.5",
                "metrics/prometheus/entrypoint=traefik",
            ],
        );
        check(
            "[accessLog.filters]\nstatusCodes = ['200', '300-302']\nminDuration = '10ms'\n\
             [accessLog.fields.names]\nClientUsername = 'drop'\n[accessLog.fields.headers.names]\nUser-Agent = 'redact'",
            &[
                "accesslog/=",
                "accesslog/bufferingsize=0",
                "accesslog/fields/=",
                "accesslog/fields/defaultmode=keep",
                "accesslog/fields/headers/=",
                "accesslog/fields/headers/defaultmode=keep",
                "accesslog/fields/headers/names/User-Agent=redact",
                "accesslog/fields/names/ClientUsername=drop",
                "accesslog/filepath=",
                "accesslog/filters/=",
                "accesslog/filters/minduration=10000000",
                "accesslog/filters/retryattempts=false",
                "accesslog/filters/statuscodes/0=200",
                "accesslog/filters/statuscodes/1=300-302",
                "accesslog/format=common",
            ],
        );
        check(
            "[ping]\n[rest]\n[cluster]\nnode = 'node1'",
            &[
                "cluster/=",
                "cluster/node=node1",
                "ping/=",
                "ping/entrypoint=traefik",
                "rest/=",
                "rest/entrypoint=traefik",
            ],
        );
        check(
            "[entryPoints.http]\n[entryPoints.http.auth.basic]\nusers = ['a:b', 'c:d']\nremoveHeader = true\n\
             [entryPoints.http.whiteList]\nsourceRange = ['1.2.3.4', '::1']",
            &[
                "entrypoints/http/=",
                "entrypoints/http/address=",
                "entrypoints/http/auth/=",
                "entrypoints/http/auth/basic/=",
                "entrypoints/http/auth/basic/removeheader=true",
                "entrypoints/http/auth/basic/users/0=a:b",
                "entrypoints/http/auth/basic/users/1=c:d",
                "entrypoints/http/auth/basic/usersfile=",
                "entrypoints/http/auth/headerfield=",
                "entrypoints/http/compress=false",
                "entrypoints/http/whitelist/=",
                "entrypoints/http/whitelist/sourcerange/0=1.2.3.4",
                "entrypoints/http/whitelist/sourcerange/1=::1",
                "entrypoints/http/whitelist/usexforwardedfor=false",
            ],
        );
        // The section that says where rules are is not for the store, and neither is a file of accounts.
        check("[file]\nfilename = 'r.toml'", &[]);
    }

    #[test]
    fn frontends_and_backends_are_written_as_they_are_read() {
        let (dynamic, _) = dynamic_from_toml(
            "f",
            r"
            [backends.b]
            servers.s.url = 'http://a'
            loadBalancer.stickiness.cookieName = 'c'
            maxConn.amount = 3
            [frontends.f]
            backend = 'b'
            routes.r.rule = 'Path:/{id:\d+}'
            ratelimit.extractorFunc = 'client.ip'
            ratelimit.rateSet.p = { period = '10s', average = 5 }
            [[tls]]
            certificate.certFile = 'c'
            ",
        )
        .expect("valid");
        assert_eq!(
            lines(&dynamic_keys(&dynamic, true)),
            "backends/b/=\nbackends/b/loadbalancer/=\n\
             backends/b/loadbalancer/stickiness=true\nbackends/b/loadbalancer/stickiness/=\n\
             backends/b/loadbalancer/stickiness/cookiename=c\nbackends/b/loadbalancer/stickiness/httponly=false\n\
             backends/b/loadbalancer/stickiness/secure=false\nbackends/b/loadbalancer/sticky=false\n\
             backends/b/maxconn/=\nbackends/b/maxconn/amount=3\nbackends/b/maxconn/extractorfunc=\n\
             backends/b/servers/s/url=http://a\n\
             frontends/f/=\nfrontends/f/backend=b\nfrontends/f/passhostheader=false\nfrontends/f/passtlscert=false\n\
             frontends/f/priority=0\nfrontends/f/ratelimit/=\nfrontends/f/ratelimit/extractorfunc=client.ip\n\
             frontends/f/ratelimit/rateset/p/=\nfrontends/f/ratelimit/rateset/p/average=5\n\
             frontends/f/ratelimit/rateset/p/burst=0\nfrontends/f/ratelimit/rateset/p/period=10s\n\
             frontends/f/routes/r/rule=Path:/{id:\\\\d+}\n\
             tls/0/=\ntls/0/certificate/=\ntls/0/certificate/certfile=c\n"
        );
        assert!(
            dynamic_keys(&dynamic, false)
                .iter()
                .all(|found| found.key != "backends/b/loadbalancer/stickiness")
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let check = |key: &str, value: &str, expected: &str| {
            let found = KeyValue {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            assert_eq!(found.shown(), expected, "{key}");
        };
        check("consul/password", "p", "xxxx");
        check("consul/password", "", "");
        check(
            "consul/endpoint",
            "http://me:p@host:1/x",
            "http://xxxx@host:1/x",
        );
        check("consul/endpoint", "host:1", "host:1");
        check("entrypoints/http/auth/basic/users/0", "a:b", "xxxx");
        check("frontends/f/basicauth/0", "a:b", "xxxx");
        check(
            "tls/0/certificate/keyfile",
            "-----BEGIN EC PRIVATE KEY-----\nx",
            "xxxx",
        );
        check("tls/0/certificate/keyfile", "/path", "/path");
    }

    /// Makes a configuration out of a few bytes: which options are there, and what they say.
    struct Dice<'b> {
        bytes: std::slice::Iter<'b, u8>,
        is_dynamic: bool,
    }

    impl Dice<'_> {
        fn roll(&mut self, sides: u8) -> u8 {
            self.bytes.next().copied().unwrap_or(0) % sides
        }

        fn node(&mut self, name: &str, kind: &Kind) -> Option<Node> {
            const TEXTS: &[&str] = &[
                "a",
                "B c",
                "\u{e9}/x",
                "a\\d",
                "\\\\n",
                "say \"x\"",
                "1",
                "x=y",
                "-----BEGIN\nx\n",
                "a\r",
                "\\u0041",
                "{a,b}",
            ];
            let data = match kind {
                Kind::Bool => Data::Bool(self.roll(2) == 1),
                Kind::Integer => Data::Integer(i64::from(self.roll(250)) - 100),
                Kind::Number => Data::Float(f64::from(self.roll(100)) / 10.0),
                Kind::Duration => Data::Word(format!("{}ms", self.roll(250))),
                Kind::Text if name == "constraints" => Data::Text("tag!=a*".to_owned()),
                Kind::Text => Data::Text(TEXTS[usize::from(self.roll(12))].to_owned()),
                Kind::List(inner, _) => {
                    let count = 1 + self.roll(3);
                    Data::List((0..count).filter_map(|_| self.node(name, inner)).collect())
                }
                Kind::Map(inner) => {
                    let names: &[&str] = match **inner {
                        Kind::Text => &["X-A", "Etag", "X-Long-Name"],
                        _ => &["a", "B.c \u{e9}", "a-b"],
                    };
                    let count = usize::from(self.roll(4));
                    let mut table = Table::default();
                    for name in &names[..count] {
                        if let Some(node) = self.node(name, inner) {
                            table.insert(name, &Place::Default, node);
                        }
                    }
                    Data::Table(table)
                }
                Kind::Section(options) => Data::Table(self.section(options)),
                Kind::Foreign => return None,
            };
            Some(Node::new(&Place::Default, data))
        }

        fn section(&mut self, options: &'static [Entry]) -> Table {
            let mut table = Table::default();
            for (index, option) in options.iter().enumerate() {
                let kind = (option.kind)();
                // Some value must be there for the section to be there; dynamic sections have values that must be there.
                let is_certain = index == 0
                    || option.name == "certificate"
                    || self.is_dynamic && !matches!(kind, Kind::Section(_));
                // Coreway's own section has checks of its own, and where rules are is not written.
                let is_not_written = matches!(option.name, "file" | "storageFile" | "basicAuth");
                if is_not_written || !is_certain && self.roll(3) != 0 {
                    continue;
                }
                if let Some(node) = self.node(option.name, &kind) {
                    table.insert(option.name, &Place::Default, node);
                }
            }
            table
        }
    }

    proptest! {
        #[test]
        fn a_static_configuration_reads_back(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut dice = Dice { bytes: bytes.iter(), is_dynamic: false };
            let tree = Node::new(&Place::Default, Data::Table(dice.section(Global::OPTIONS)));
            let mut global = Global::read(&tree).expect("made of valid values");
            for entry_point in global.entry_points.values_mut() {
                if let Some(tls) = &mut entry_point.tls {
                    // Held by value: without files it is as if it were not there.
                    tls.client_ca.get_or_insert_default();
                }
            }
            let keys = static_keys(&global, &|name| tree.get(&[name]).is_some());
            let mut read = Node::table(&Place::Default);
            overlay(&mut read, "traefik", pairs(&keys)).expect("written by ourselves");
            prop_assert_eq!(Global::read(&read).expect("written by ourselves"), global);
        }

        #[test]
        fn a_dynamic_configuration_reads_back(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400),
            values_in_folders in proptest::bool::ANY,
        ) {
            let mut dice = Dice { bytes: bytes.iter(), is_dynamic: true };
            let tree = Node::new(&Place::Default, Data::Table(dice.section(Dynamic::OPTIONS)));
            let mut dynamic = Dynamic::read(&tree).expect("made of valid values");
            for frontend in dynamic.frontends.values_mut() {
                if let Some(redirect) = &mut frontend.redirect {
                    // An entry point goes before an expression, and only one of them is kept.
                    redirect.regex.clear();
                    redirect.replacement.clear();
                }
            }
            let keys = dynamic_keys(&dynamic, values_in_folders);
            let (read, problems) = DynamicKeys::new(Vec::new()).read("traefik", pairs(&keys));
            prop_assert_eq!(read, dynamic);
            prop_assert_eq!(problems.errors, Problems::default().errors);
        }
    }
}
