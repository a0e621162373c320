//! A node of Traefik 1.7 as its store sees it: the same keys, sessions and leases, by each store's own interface.
//!
//! Owns no client of ours: what our code reads and writes is judged by this one. It never renews what it stands on, which
//! lasts longer than a test. Layouts: spec cluster 3.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coreway::store::Kind;
use serde_json::{Value, json};

use crate::harness::{Client, Response, get};

/// The flags of every key in Consul that can be a lock.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

/// A node that wants to lead.
pub(super) struct Node {
    kind: Kind,
    endpoint: String,
    key: String,
    name: String,
    standing: Standing,
}

/// What it stands on.
enum Standing {
    /// Consul's.
    Session(String),
    /// What the key beside was created with, in etcd v2.
    Side(Option<u64>),
    /// In etcd v3, and whether it has its place in the queue.
    Lease(u64, bool),
    /// In ZooKeeper, and the name of its place in the queue.
    Connection(ZooKeeper, Option<String>),
}

impl Node {
    /// `key` is full.
    pub(super) fn new(kind: Kind, endpoint: &str, key: &str, name: &str) -> Self {
        let standing = match kind {
            Kind::Consul => {
                let body = json!({"TTL": "10s", "LockDelay": "1ms", "Behavior": "release"});
                let told = ask(endpoint, "PUT", "/v1/session/create", &body.to_string());
                Standing::Session(told["ID"].as_str().unwrap().to_owned())
            }
            Kind::EtcdV2 => Standing::Side(None),
            Kind::EtcdV3 => {
                let told = ask(endpoint, "POST", "/v3/lease/grant", r#"{"TTL": "20"}"#);
                Standing::Lease(number(&told["ID"]), false)
            }
            Kind::ZooKeeper => Standing::Connection(ZooKeeper::connect(endpoint), None),
            Kind::BoltDb => unreachable!("1.7 had no election there"),
        };
        Self {
            kind,
            endpoint: endpoint.to_owned(),
            key: key.to_owned(),
            name: name.to_owned(),
            standing,
        }
    }

    /// Tries to take the lock, or looks whether its turn has come; whether it leads.
    pub(super) fn leads(&mut self) -> bool {
        let Self {
            endpoint,
            key,
            name,
            standing,
            ..
        } = self;
        match standing {
            Standing::Session(session) => {
                let target = format!("/v1/kv/{key}?acquire={session}&flags={FLAGS}");
                ask(endpoint, "PUT", &target, name) == true
            }
            Standing::Side(created) => {
                if created.is_none() {
                    let target = format!("/v2/keys{key}___lock?prevExist=false");
                    let told = ask(endpoint, "PUT", &target, "value=&ttl=20");
                    *created = told["node"]["createdIndex"].as_u64();
                    if created.is_some() {
                        let target = format!("/v2/keys{key}");
                        ask(endpoint, "PUT", &target, &format!("value={name}"));
                    }
                }
                created.is_some()
            }
            Standing::Lease(lease, is_queued) => {
                let place = format!("{key}___lock/{lease:x}");
                if !*is_queued {
                    let put = json!({"key": coded(&place), "lease": lease.to_string()});
                    ask(endpoint, "POST", "/v3/kv/put", &put.to_string());
                    *is_queued = true;
                }
                let leads = queue(endpoint, key)[0]["key"] == coded(&place);
                if leads {
                    let put = json!({"key": coded(key), "value": coded(name)});
                    ask(endpoint, "POST", "/v3/kv/put", &put.to_string());
                }
                leads
            }
            Standing::Connection(connection, place) => {
                let place = place.get_or_insert_with(|| {
                    connection.make_parents(&format!("{key}/"));
                    connection.make(
                        &format!("{key}/_c_{:032x}-lock-", std::process::id()),
                        "",
                        3,
                    )
                });
                let first = connection.queue(key).swap_remove(0);
                let leads = place.ends_with(&first);
                if leads {
                    connection.set(key, name);
                }
                leads
            }
        }
    }

    /// Its session, lease or key ends, as when the store has not heard of it for long enough.
    pub(super) fn expire(self) {
        let endpoint = &self.endpoint;
        match self.standing {
            Standing::Session(session) => {
                let target = format!("/v1/session/destroy/{session}");
                ask(endpoint, "PUT", &target, "");
            }
            Standing::Lease(lease, _) => revoke(endpoint, lease),
            Standing::Side(_) | Standing::Connection(..) => {
                take_away(self.kind, endpoint, &self.key);
            }
        }
    }
}

/// Ends the lock of whoever holds it in the store itself, before its holder can know.
pub(crate) fn take_away(kind: Kind, endpoint: &str, key: &str) {
    match kind {
        Kind::Consul => {
            let told = ask(endpoint, "GET", &format!("/v1/kv/{key}"), "");
            let session = told[0]["Session"].as_str().expect("it is held");
            ask(
                endpoint,
                "PUT",
                &format!("/v1/session/destroy/{session}"),
                "",
            );
        }
        Kind::EtcdV2 => {
            let target = format!("/v2/keys{key}___lock");
            ask(endpoint, "DELETE", &target, "");
        }
        Kind::EtcdV3 => revoke(endpoint, number(&queue(endpoint, key)[0]["lease"])),
        Kind::ZooKeeper => {
            let mut connection = ZooKeeper::connect(endpoint);
            let first = connection.queue(key).swap_remove(0);
            connection.remove(&format!("{key}/{first}"));
        }
        Kind::BoltDb => unreachable!("nobody else can hold it"),
    }
}

/// How many want a lock, where the store keeps a queue.
pub(super) fn queue_length(kind: Kind, endpoint: &str, key: &str) -> usize {
    match kind {
        Kind::EtcdV3 => queue(endpoint, key).len(),
        Kind::ZooKeeper => ZooKeeper::connect(endpoint).queue(key).len(),
        Kind::Consul | Kind::EtcdV2 | Kind::BoltDb => unreachable!("it keeps none"),
    }
}

/// How many requests and messages a store has had since it was started, as it counts them itself.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is counted is whole, never negative, and far below 2^53"
)]
pub(super) fn requests(kind: Kind, endpoint: &str) -> u64 {
    let metrics = |target: &str, name: &str, end: &str| -> f64 {
        let address: SocketAddr = endpoint.parse().expect("an address");
        let text = get(address, "store", target).text();
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let series = series.split('{').next()?;
            let is_counted = series.starts_with(name) && series.ends_with(end);
            is_counted.then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    };
    let counted = match kind {
        Kind::Consul => metrics(
            "/v1/agent/metrics?format=prometheus",
            "consul_http_",
            "_count",
        ),
        Kind::EtcdV2 => metrics("/metrics", "etcd_http_received_total", ""),
        Kind::EtcdV3 => metrics("/metrics", "grpc_server_msg_received_total", ""),
        Kind::ZooKeeper => {
            let mut stream = TcpStream::connect(endpoint).unwrap();
            stream.write_all(b"mntr").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let line = text
                .lines()
                .find(|line| line.starts_with("zk_packets_received"));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or_default()
        }
        Kind::BoltDb => unreachable!("it has no server"),
    };
    counted.round() as u64
}

/// What stands in the keys of a lock that is held by `name`, exactly as 1.7 would leave it there.
pub(super) fn assert_layout(kind: Kind, endpoint: &str, key: &str, name: &str) {
    match kind {
        Kind::Consul => {
            let entry = ask(endpoint, "GET", &format!("/v1/kv/{key}"), "")[0].clone();
            assert_eq!(entry["Flags"], FLAGS);
            assert_eq!(entry["Value"], coded(name));
            let session = entry["Session"].as_str().expect("it is held");
            let target = format!("/v1/session/info/{session}");
            let session = ask(endpoint, "GET", &target, "")[0].clone();
            let seen = (&session["TTL"], &session["Behavior"], &session["Name"]);
            assert_eq!(seen, (&json!("10s"), &json!("release"), &json!("")));
            assert_eq!(session["LockDelay"], 1_000_000, "nanoseconds");
        }
        Kind::EtcdV2 => {
            let value = ask(endpoint, "GET", &format!("/v2/keys{key}"), "");
            assert_eq!(value["node"]["value"], name);
            assert_eq!(value["node"]["ttl"], Value::Null);
            let side = ask(endpoint, "GET", &format!("/v2/keys{key}___lock"), "");
            assert_eq!(side["node"]["value"], "");
            let ttl = side["node"]["ttl"].as_u64().expect("it ends");
            assert!((1..=20).contains(&ttl), "{ttl}");
        }
        Kind::EtcdV3 => {
            let question = json!({"key": coded(key)}).to_string();
            let value = ask(endpoint, "POST", "/v3/kv/range", &question);
            assert_eq!(value["kvs"][0]["value"], coded(name));
            assert_eq!(value["kvs"][0]["lease"], Value::Null);
            let place = &queue(endpoint, key)[0];
            let lease = number(&place["lease"]);
            assert_eq!(place["key"], coded(&format!("{key}___lock/{lease:x}")));
            let question = json!({"ID": lease.to_string()}).to_string();
            let told = ask(endpoint, "POST", "/v3/lease/timetolive", &question);
            assert_eq!(number(&told["grantedTTL"]), 20);
        }
        Kind::ZooKeeper => {
            let mut connection = ZooKeeper::connect(endpoint);
            assert_eq!(connection.value(key), name);
            let first = connection.queue(key).swap_remove(0);
            let middle = first.strip_prefix("_c_").expect("the mark of a place");
            let (random, number) = middle.split_once("-lock-").expect("the name of a lock");
            assert_eq!((random.len(), number.len()), (32, 10), "{first}");
            assert!(random.bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert!(number.bytes().all(|byte| byte.is_ascii_digit()));
        }
        Kind::BoltDb => {}
    }
}

/// One request, and its answer as JSON; nothing if it is none.
fn ask(endpoint: &str, method: &str, target: &str, body: &str) -> Value {
    let kind = if target.starts_with("/v2") {
        "application/x-www-form-urlencoded"
    } else {
        "application/json"
    };
    let address: SocketAddr = endpoint.parse().expect("an address");
    let response: Response = Client::connect(address).exchange(format!(
        "{method} {target} HTTP/1.1\r\nHost: store\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    serde_json::from_str(response.text().trim()).unwrap_or_default()
}

fn coded(text: &str) -> String {
    STANDARD.encode(text)
}

/// The gateway of etcd writes numbers of 64 bits as text.
fn number(value: &Value) -> u64 {
    value.as_str().expect("a number").parse().unwrap()
}

/// Whoever wants the lock in etcd v3, the holder first.
fn queue(endpoint: &str, key: &str) -> Vec<Value> {
    let question = json!({
        "key": coded(&format!("{key}___lock/")),
        "range_end": coded(&format!("{key}___lock0")),
        "sort_order": "ASCEND",
        "sort_target": "CREATE",
    });
    let told = ask(endpoint, "POST", "/v3/kv/range", &question.to_string());
    told["kvs"].as_array().expect("somebody wants it").clone()
}

fn revoke(endpoint: &str, lease: u64) {
    let question = json!({"ID": lease.to_string()}).to_string();
    ask(endpoint, "POST", "/v3/lease/revoke", &question);
}

/// A session with ZooKeeper: requests one at a time.
struct ZooKeeper(TcpStream);

impl ZooKeeper {
    fn connect(endpoint: &str) -> Self {
        let mut stream = TcpStream::connect(endpoint).unwrap();
        let mut hello = Vec::new();
        hello.extend(0i32.to_be_bytes());
        hello.extend(0i64.to_be_bytes());
        hello.extend(30_000i32.to_be_bytes());
        hello.extend(0i64.to_be_bytes());
        hello.extend(buffer(&[0; 16]));
        stream.write_all(&buffer(&hello)).unwrap();
        let mut connection = Self(stream);
        connection.frame();
        connection
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).unwrap();
        frame
    }

    /// The answer behind its head.
    fn ask(&mut self, kind: i32, body: &[u8]) -> Vec<u8> {
        let mut request = Vec::new();
        request.extend(1i32.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(body);
        self.0.write_all(&buffer(&request)).unwrap();
        self.frame().split_off(16)
    }

    /// Makes a node; its path, if it did.
    fn make(&mut self, path: &str, data: &str, kind: i32) -> String {
        let mut body = [buffer(path.as_bytes()), buffer(data.as_bytes())].concat();
        body.extend(1i32.to_be_bytes());
        body.extend(0x1fi32.to_be_bytes());
        body.extend([buffer(b"world"), buffer(b"anyone")].concat());
        body.extend(kind.to_be_bytes());
        let answer = self.ask(1, &body);
        texts(&answer, 1).pop().unwrap_or_default()
    }

    fn make_parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            self.make(&path[..at], "", 0);
        }
    }

    fn set(&mut self, path: &str, data: &str) {
        let mut body = [buffer(path.as_bytes()), buffer(data.as_bytes())].concat();
        body.extend((-1i32).to_be_bytes());
        self.ask(5, &body);
    }

    fn remove(&mut self, path: &str) {
        let mut body = buffer(path.as_bytes());
        body.extend((-1i32).to_be_bytes());
        self.ask(2, &body);
    }

    fn value(&mut self, path: &str) -> String {
        let body = [buffer(path.as_bytes()), vec![0]].concat();
        texts(&self.ask(4, &body), 1).remove(0)
    }

    /// Whoever wants the lock, the holder first.
    fn queue(&mut self, path: &str) -> Vec<String> {
        let body = [buffer(path.as_bytes()), vec![0]].concat();
        let answer = self.ask(8, &body);
        let count = i32::from_be_bytes(answer[..4].try_into().unwrap());
        let mut names = texts(&answer[4..], usize::try_from(count).unwrap());
        names.sort_by_key(|name| name.rsplit('-').next().map(str::to_owned));
        names
    }
}

fn buffer(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

/// So many texts, as far as there are.
fn texts(mut bytes: &[u8], count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            break;
        };
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&rest[..length]).into_owned());
        bytes = &rest[length..];
    }
    texts
}
