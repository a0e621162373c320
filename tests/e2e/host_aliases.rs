//! `hostResolver`: a rule for a host means its CNAMEs too, as a name server tells them.

use std::fmt::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Coreway, Origin, Start, backend, eventually, get};

const CNAME: [u8; 2] = [0, 5];

/// A name server that knows these aliases and lifetimes in seconds, and records what it is asked for. It says nothing of
/// names that begin with `silent`.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    fn new(aliases: &'static [(&'static str, &'static str, u32)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((count, peer)) = socket.recv_from(&mut packet) {
                let question = &packet[..count];
                let name = name(&question[12..]);
                record.lock().unwrap().push(name.clone());
                assert_eq!(question[count - 4..count - 2], CNAME);
                if name.starts_with("silent") {
                    continue;
                }
                let alias = aliases.iter().find(|(known, ..)| *known == name);
                let mut answer = question.to_vec();
                // An answer, from somebody who asks others.
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                if let Some((_, target, lifetime)) = alias {
                    answer[7] = 1;
                    answer.extend([0xc0, 12]);
                    answer.extend(CNAME);
                    answer.extend([0, 1]);
                    answer.extend(lifetime.to_be_bytes());
                    let mut data = Vec::new();
                    for label in target.split('.') {
                        data.push(u8::try_from(label.len()).unwrap());
                        data.extend_from_slice(label.as_bytes());
                    }
                    data.push(0);
                    answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
                    answer.extend(data);
                }
                socket.send_to(&answer, peer).unwrap();
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn name(mut bytes: &[u8]) -> String {
    let mut name = String::new();
    while let [length, rest @ ..] = bytes {
        if *length == 0 {
            break;
        }
        let (label, after) = rest.split_at(usize::from(*length));
        let dot = if name.is_empty() { "" } else { "." };
        write!(name, "{dot}{}", String::from_utf8_lossy(label)).unwrap();
        bytes = after;
    }
    name
}

/// Frontends for `real.test`, for `direct.test`, and for everything else.
fn rules(real: &Origin, direct: &Origin, other: &Origin) -> String {
    let frontend = |name: &str, rule: &str| {
        format!(
            "[frontends.{name}]\nbackend = \"{name}\"\n[frontends.{name}.routes.r]\nrule = \"{rule}\"\n"
        )
    };
    backend("real", real)
        + &backend("direct", direct)
        + &backend("other", other)
        + &frontend("real", "Host:real.test")
        + &frontend("direct", "Host:direct.test")
        + &frontend("other", "PathPrefix:/")
}

struct Site {
    coreway: Coreway,
    _origins: [Origin; 3],
}

fn site(server: &NameServer, options: &str) -> Site {
    let origins = ["real", "direct", "other"].map(Origin::text);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(
        &file,
        format!("search test\nnameserver {}\n", server.address),
    )
    .unwrap();
    let [real, direct, other] = &origins;
    let coreway = Start::new()
        .cores(1)
        .table(&format!(
            "[hostResolver]\ncnameFlattening = true\n{}\n",
            options.replace("$FILE", file.to_str().unwrap())
        ))
        .serve(&rules(real, direct, other));
    // Read for each question, so it has to stay.
    drop(folder.keep());
    Site {
        coreway,
        _origins: origins,
    }
}

impl Site {
    fn ask(&self, host: &str) -> String {
        get(self.coreway.address(), host, "/").text()
    }
}

#[test]
fn a_rule_means_the_aliases_of_its_host() {
    let server = NameServer::new(&[
        ("cust.test", "mid.cdn.test", 300),
        ("mid.cdn.test", "Real.test", 1),
        ("direct.test", "real.test", 300),
        ("long.test", "a.long.test", 300),
        ("a.long.test", "b.long.test", 300),
        ("b.long.test", "real.test", 300),
    ]);
    let site = site(&server, "resolvConfig = \"$FILE\"\nresolvDepth = 2");
    assert!(
        !site.coreway.log().contains("hostResolver"),
        "{}",
        site.coreway.log()
    );
    assert_eq!(site.ask("cust.test"), "real");
    assert_eq!(
        server.asked(),
        ["cust.test", "mid.cdn.test"],
        "as far as is allowed"
    );
    for host in ["CUST.test:80", "cust.test"] {
        assert_eq!(site.ask(host), "real", "{host}");
    }
    assert_eq!(server.asked().len(), 2, "it is known now");
    // A host that a rule names is not looked up, nor is what is no name.
    assert_eq!(site.ask("direct.test"), "direct");
    assert_eq!(site.ask("real.test"), "real");
    assert_eq!(site.ask("10.0.0.1"), "other");
    assert_eq!(server.asked().len(), 2);
    // Names between do not count, nor ends that are too far.
    assert_eq!(site.ask("mid.cdn.test"), "real");
    assert_eq!(site.ask("long.test"), "other");
    assert_eq!(site.ask("nobody.test"), "other");
    assert_eq!(site.ask("nobody.test"), "other");
    let of_nobody = server
        .asked()
        .iter()
        .filter(|name| *name == "nobody.test")
        .count();
    assert_eq!(of_nobody, 1, "that there is none is known too");
}

#[test]
fn an_alias_is_asked_for_again_when_its_time_is_over() {
    let server = NameServer::new(&[("brief.test", "real.test", 1)]);
    let site = site(&server, "resolvConf = \"$FILE\"");
    assert_eq!(site.ask("brief.test"), "real");
    eventually("it is asked for again", || {
        assert_eq!(site.ask("brief.test"), "real");
        server
            .asked()
            .iter()
            .filter(|name| *name == "brief.test")
            .count()
            > 1
    });
}

#[test]
fn a_silent_name_server_holds_nobody_else_up() {
    let server = NameServer::new(&[("cust.test", "real.test", 300)]);
    let site = site(&server, "resolvConfig = \"$FILE\"");
    let mut waiting = site.coreway.client();
    waiting.send("GET / HTTP/1.1\r\nHost: silent.test\r\n\r\n");
    eventually("it is asked for", || !server.asked().is_empty());
    // One core: it serves others meanwhile, also those whose host is not known yet.
    assert_eq!(site.ask("cust.test"), "real");
    assert_eq!(site.ask("direct.test"), "direct");
    assert_eq!(waiting.response().text(), "other", "in the end without");
}

#[test]
fn without_the_option_nobody_is_asked() {
    let server = NameServer::new(&[("cust.test", "real.test", 300)]);
    let origins = ["real", "direct", "other"].map(Origin::text);
    let [real, direct, other] = &origins;
    let coreway = Start::new()
        .table("[hostResolver]\nresolvDepth = 3")
        .serve(&rules(real, direct, other));
    assert_eq!(get(coreway.address(), "cust.test", "/").text(), "other");
    assert!(server.asked().is_empty());
}
