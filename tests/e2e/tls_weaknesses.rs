//! What scanners of TLS look for, with handshakes that are written by hand: nothing weak is agreed on, by default and with
//! either kind of key.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::harness::tls::Authority;
use crate::harness::{Coreway, DEADLINE, Origin, Start, site};

const TLS12: u16 = 0x0303;

/// RFC 8447's recommended suites of TLS 1.2 that we speak, by the key they are for.
const STRONG_ECDSA: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
const STRONG_RSA: [u16; 3] = [0xc02f, 0xc030, 0xcca8];

/// That no renegotiation is begun; no suite.
const RENEGOTIATION_SCSV: u16 = 0x00ff;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Extensions (RFC 8446 4.2, RFC 5746, RFC 6520).
const SERVER_NAME: u16 = 0;
const GROUPS: u16 = 10;
const SIGNATURES: u16 = 13;
const HEARTBEAT: u16 = 15;
const EXTENDED_MASTER_SECRET: u16 = 23;
const RENEGOTIATION_INFO: u16 = 0xff01;

/// What a client says first.
#[derive(Clone)]
struct Hello {
    version: u16,
    suites: Vec<u16>,
    compressions: Vec<u8>,
    /// Elliptic curves.
    groups: Vec<u16>,
    signatures: Vec<u16>,
}

impl Default for Hello {
    /// Nothing to object to.
    fn default() -> Self {
        Self {
            version: TLS12,
            suites: [STRONG_ECDSA, STRONG_RSA].concat(),
            compressions: vec![0],
            groups: vec![0x001d, 0x0017],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0201, 0x0203],
        }
    }
}

fn prefixed(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn numbers(list: &[u16]) -> Vec<u8> {
    prefixed(
        2,
        &list
            .iter()
            .flat_map(|one| one.to_be_bytes())
            .collect::<Vec<_>>(),
    )
}

impl Hello {
    fn bytes(&self) -> Vec<u8> {
        let extension =
            |kind: u16, content: &[u8]| [&kind.to_be_bytes(), &*prefixed(2, content)].concat();
        let name = prefixed(2, &[&[0], &*prefixed(2, b"a.test")].concat());
        let extensions = [
            extension(SERVER_NAME, &name),
            extension(GROUPS, &numbers(&self.groups)),
            extension(SIGNATURES, &numbers(&self.signatures)),
            extension(HEARTBEAT, &[1]),
            extension(EXTENDED_MASTER_SECRET, &[]),
            extension(RENEGOTIATION_INFO, &[0]),
        ]
        .concat();
        let body = [
            &self.version.to_be_bytes(),
            &[7; 32][..],
            &[0],
            &numbers(&self.suites),
            &prefixed(1, &self.compressions),
            &prefixed(2, &extensions),
        ]
        .concat();
        let message = [&[1], &*prefixed(3, &body)].concat();
        let record_version = self.version.min(0x0301);
        [
            &[HANDSHAKE][..],
            &record_version.to_be_bytes(),
            &prefixed(2, &message),
        ]
        .concat()
    }
}

/// What a server says first.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    /// Fatal, with this description.
    Alert(u8),
    Hello {
        version: u16,
        suite: u16,
        compression: u8,
        extensions: Vec<u16>,
        /// The end of its random bytes, where it says that it could do better (RFC 8446 4.1.3).
        mark: Vec<u8>,
    },
}

fn tell(address: SocketAddr, hello: &Hello) -> Told {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&hello.bytes()).unwrap();
    let mut head = [0; 5];
    socket.read_exact(&mut head).expect("an answer");
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    socket.read_exact(&mut record).expect("the whole record");
    if head[0] == ALERT {
        assert_eq!(record[0], 2, "an alert that ends it");
        return Told::Alert(record[1]);
    }
    assert_eq!((head[0], record[0]), (HANDSHAKE, 2), "a hello");
    let two = |at: usize| u16::from_be_bytes([record[at], record[at + 1]]);
    // Behind the head of the message: version, random bytes, session, suite, compression, extensions.
    let session_end = 39 + usize::from(record[38]);
    let mut extensions = Vec::new();
    let mut at = session_end + 5;
    let end = at + usize::from(two(session_end + 3));
    while at < end {
        extensions.push(two(at));
        at += 4 + usize::from(two(at + 2));
    }
    Told::Hello {
        version: two(4),
        suite: two(session_end),
        compression: record[session_end + 2],
        extensions,
        mark: record[30..38].to_vec(),
    }
}

/// A site at `a.test` whose key is of this kind.
struct Edge {
    coreway: Coreway,
    strong: [u16; 3],
    _origin: Origin,
}

impl Edge {
    fn both() -> [Self; 2] {
        let authority = Authority::new("Test CA");
        [
            (authority.issue(&["a.test"]), STRONG_ECDSA),
            (authority.issue_rsa(&["a.test"]), STRONG_RSA),
        ]
        .map(|(pair, strong)| {
            let origin = Origin::text("hello");
            let tls = "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n";
            let coreway = Start::new()
                .entry_point(&format!("{tls}{}", pair.toml()))
                .serve(&site(&origin));
            Self {
                coreway,
                strong,
                _origin: origin,
            }
        })
    }

    fn tell(&self, hello: &Hello) -> Told {
        tell(self.coreway.address(), hello)
    }
}

#[test]
fn old_versions_are_refused() {
    // With all that they could have, and what is strong.
    let suites: Vec<u16> = (0x0001..0x00c6).chain(0xc001..0xc0b0).collect();
    for edge in Edge::both() {
        for version in [0x0300, 0x0301, 0x0302] {
            let hello = Hello {
                version,
                suites: suites.clone(),
                ..Hello::default()
            };
            // protocol_version
            assert_eq!(edge.tell(&hello), Told::Alert(70), "{version:#06x}");
        }
        // SSL 2.0, as its clients began: it is no record, so it gets no hello.
        let mut socket = TcpStream::connect(edge.coreway.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let hello = [
            &[0x80, 0x1c, 1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..],
            &[7; 16],
        ]
        .concat();
        socket.write_all(&hello).unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert!(said.is_empty() || said[0] == ALERT, "{said:?}");
    }
}

#[test]
fn each_weak_suite_is_refused() {
    for edge in Edge::both() {
        let known = (0x0000..=0x00c6_u16)
            .chain(0xc001..=0xc0b4)
            .chain([0xcc13, 0xcc14, 0xcc15])
            .chain(0xcca8..=0xccae)
            // Drafts, national and private ones that scanners know; those of TLS 1.3, which go with no other version.
            .chain([0xc100, 0xc101, 0xc102, 0xfefe, 0xfeff, 0xffe0, 0xffe1])
            .chain(0x1301..=0x1305);
        for suite in known {
            let hello = Hello {
                suites: vec![suite, RENEGOTIATION_SCSV],
                ..Hello::default()
            };
            let told = edge.tell(&hello);
            if edge.strong.contains(&suite) {
                let agreed = matches!(&told, Told::Hello { suite: agreed, .. } if *agreed == suite);
                assert!(agreed, "{suite:#06x}: {told:?}");
            } else {
                // handshake_failure
                assert_eq!(told, Told::Alert(40), "{suite:#06x}");
            }
        }
    }
}

#[test]
fn nothing_weak_is_agreed_on_beside_the_suite() {
    for edge in Edge::both() {
        let strong = edge.strong.to_vec();
        let refused = |what: &str, hello: Hello| {
            let told = edge.tell(&hello);
            assert!(matches!(told, Told::Alert(_)), "{what}: {told:?}");
        };
        let Told::Hello {
            version,
            compression,
            extensions,
            mark,
            ..
        } = edge.tell(&Hello {
            // Deflate is asked for first.
            compressions: vec![1, 0],
            ..Hello::default()
        })
        else {
            panic!("no hello");
        };
        assert_eq!((version, compression), (TLS12, 0));
        assert!(
            extensions.contains(&RENEGOTIATION_INFO),
            "RFC 5746: {extensions:?}"
        );
        assert!(
            extensions.contains(&EXTENDED_MASTER_SECRET),
            "RFC 7627: {extensions:?}"
        );
        assert!(!extensions.contains(&HEARTBEAT), "{extensions:?}");
        assert_eq!(
            mark, b"DOWNGRD\x01",
            "a client that speaks TLS 1.3 sees that it was held back"
        );
        refused(
            "compression or nothing",
            Hello {
                compressions: vec![1],
                ..Hello::default()
            },
        );
        // secp192r1, sect163k1, secp160r1; finite fields of 2048 bits.
        for group in [0x0013, 0x0001, 0x0010, 0x0100] {
            refused(
                "a weak group",
                Hello {
                    suites: strong.clone(),
                    groups: vec![group],
                    ..Hello::default()
                },
            );
        }
        // SHA-1 and MD5, with either key.
        refused(
            "weak signatures",
            Hello {
                signatures: vec![0x0201, 0x0203, 0x0101, 0x0103],
                ..Hello::default()
            },
        );
    }
}

#[test]
fn a_client_cannot_negotiate_again() {
    for edge in Edge::both() {
        // It ends by itself once it is refused; if it is not, the time limit ends it.
        let mut client = Command::new("timeout")
            .args(["15", "openssl", "s_client", "-tls1_2", "-connect"])
            .arg(edge.coreway.address().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let mut commands = client.stdin.take().unwrap();
        commands.write_all(b"R\n").unwrap();
        // Its input stays open until then.
        let output = client.wait_with_output().unwrap();
        drop(commands);
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Secure Renegotiation IS supported"), "{said}");
        assert!(said.contains("RENEGOTIATING"), "{said}");
        let refusals = [
            "no renegotiation",
            "unexpected message",
            "handshake failure",
        ];
        assert!(
            refusals.iter().any(|refusal| said.contains(refusal)),
            "{said}"
        );
    }
}
