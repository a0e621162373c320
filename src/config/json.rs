//! Frontends and backends from JSON, as they are put by HTTP. Spec api-metrics-logs 3.
//!
//! Names are matched in any case and unknown ones are passed over, as in Go; numbers where a duration is expected are
//! nanoseconds. Never opens a socket. Read next: `spelling.rs`.

use serde_json::Value as Json;

use super::dynamic::Dynamic;
use super::option::{Entry, Kind, Value};
use super::spelling;
use super::tree::{Data, Named, Node, Table};
use super::units::{ConfigError, Place};

/// What JSON and TOML call differently: below a backend.
const RENAMED: (&str, &str) = ("forwardingResponse", "responseForwarding");

/// Sections that can be put: certificates cannot.
const SECTIONS: [&str; 2] = ["backends", "frontends"];

/// The configuration in `text`; `None` if it says nothing at all, which is no configuration. Each place begins with
/// `source`.
///
/// # Errors
/// It is not JSON, or gives an option a value of the wrong type: nothing of it can be used.
pub fn dynamic_from_json(source: &str, text: &[u8]) -> Result<Option<Dynamic>, ConfigError> {
    let place = Place::Key(source.into());
    let json: Json = serde_json::from_slice(text).map_err(|error| {
        let message = if error.is_eof() {
            "unexpected end of JSON input".to_owned()
        } else {
            error.to_string()
        };
        ConfigError::new(&place, message)
    })?;
    if json.is_null() {
        return Ok(None);
    }
    let mut tree = node(source, json);
    if let Data::Table(table) = &mut tree.data {
        table.entries.retain(|entry| {
            SECTIONS
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&entry.name))
        });
        if table.entries.is_empty() {
            return Ok(None);
        }
        rename(table);
    }
    // Unknown names are no mistake here, so nobody is told of them.
    spelling::correct(&mut tree, Dynamic::OPTIONS, &|_| true, &mut Vec::new());
    durations(&mut tree, &Kind::Section(Dynamic::OPTIONS));
    Dynamic::read(&tree).map(Some)
}

/// Its place is `path`, that of everything below begins with it. What is `null` is not there.
fn node(path: &str, json: Json) -> Node {
    let data = match json {
        Json::Null => Data::Table(Table::default()),
        Json::Bool(value) => Data::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Data::Integer(value),
            None => Data::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Data::Text(text),
        Json::Array(items) => {
            let items = items.into_iter().filter(|item| !item.is_null());
            Data::List(items.map(|item| node(path, item)).collect())
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            let entries = fields.map(|(name, value)| {
                let path = match value {
                    Json::Object(_) => format!("{path}/{name}"),
                    _ => path.to_owned(),
                };
                let node = node(&path, value);
                let place = node.place.clone();
                Named { name, place, node }
            });
            Data::Table(Table {
                entries: entries.collect(),
            })
        }
    };
    Node::new(&Place::Key(path.into()), data)
}

/// Gives the options of backends that JSON calls differently their names.
fn rename(table: &mut Table) {
    let backends = table
        .entries
        .iter_mut()
        .filter(|entry| entry.name.eq_ignore_ascii_case("backends"));
    for entry in backends {
        let Data::Table(backends) = &mut entry.node.data else {
            continue;
        };
        for backend in &mut backends.entries {
            if let Data::Table(options) = &mut backend.node.data {
                let (from, to) = RENAMED;
                let found = options
                    .entries
                    .iter_mut()
                    .filter(|option| option.name.eq_ignore_ascii_case(from));
                found.for_each(|option| option.name = to.to_owned());
            }
        }
    }
}

/// Makes numbers of nanoseconds durations.
fn durations(node: &mut Node, kind: &Kind) {
    match (kind, &mut node.data) {
        (Kind::Duration, Data::Integer(nanoseconds)) => {
            node.data = Data::Text(format!("{nanoseconds}ns"));
        }
        (Kind::Section(options), Data::Table(table)) => {
            for entry in &mut table.entries {
                let option = |option: &&Entry| option.name == entry.name;
                if let Some(option) = options.iter().find(option) {
                    durations(&mut entry.node, &(option.kind)());
                }
            }
        }
        (Kind::Map(inner), Data::Table(table)) => {
            for entry in &mut table.entries {
                durations(&mut entry.node, inner);
            }
        }
        (Kind::List(inner, _), Data::List(items)) => {
            items.iter_mut().for_each(|item| durations(item, inner));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::dynamic_from_toml;

    fn check(json: &str, toml: &str) {
        let (expected, _) = dynamic_from_toml("f", toml).expect("valid");
        let found = dynamic_from_json("rest", json.as_bytes()).expect(json);
        assert_eq!(found, Some(expected), "{json}");
    }

    #[test]
    fn the_same_is_said_in_json_and_in_toml() {
        check(r#"{"backends":{},"frontends":{}}"#, "");
        check(r#"{"frontends":{},"tls":[{"certificate":{}}]}"#, "");
        check(
            r#"{"Backends":{"b":{"SERVERS":{"s":{"URL":"http://a","weight":3,"x":[null]}},"circuitBreaker":null,
                "ForwardingResponse":{"flushInterval":"1s"}}},
                "frontends":{"f":{"backend":"b","basicAuth":null,"priority":2,"ratelimit":{"extractorfunc":"client.ip",
                "rateset":{"a":{"period":3000000000,"average":1,"burst":2},"b":{"period":"1m"}}},
                "headers":{"sslRedirect":true,"stsSeconds":5},"auth":{"basic":{"users":["a:b"]}}}}}"#,
            "[backends.b.servers.s]\nurl = 'http://a'\nweight = 3\n[backends.b.responseForwarding]\nflushInterval = '1s'\n\
             [frontends.f]\nbackend = 'b'\npriority = 2\n[frontends.f.ratelimit]\nextractorFunc = 'client.ip'\n\
             [frontends.f.ratelimit.rateSet.a]\nperiod = 3\naverage = 1\nburst = 2\n[frontends.f.ratelimit.rateSet.b]\nperiod = '1m'\n\
             [frontends.f.headers]\nSSLRedirect = true\nSTSSeconds = 5\n[frontends.f.auth.basic]\nusers = ['a:b']\n",
        );
    }

    #[test]
    fn what_says_nothing_is_no_configuration() {
        for json in ["null", "{}", r#"{"backends":null}"#, r#"{"other":1}"#] {
            let found = dynamic_from_json("rest", json.as_bytes()).expect(json);
            assert_eq!(found, None, "{json}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        let check = |json: &str, expected: &str| {
            let error = dynamic_from_json("rest", json.as_bytes()).expect_err(json);
            assert_eq!(error.to_string(), expected, "{json}");
        };
        check("", "rest: unexpected end of JSON input");
        check("{", "rest: unexpected end of JSON input");
        check("{b}", "rest: key must be a string at line 1 column 2");
        check("[]", "rest: expected a table, found a list");
        check(
            r#"{"backends":{"b":{"servers":{"s":{"weight":"1"}}}}}"#,
            "rest/backends/b/servers/s: backends.b.servers.s.weight: expected an integer, found a string",
        );
    }
}
