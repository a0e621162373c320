//! Other names of hosts that clients ask for: the ends of their CNAME chains. Spec rules 8.
//!
//! Owns what is known of each host, for all cores, and the questions under way: a host is asked for once, however many wait.
//! Name servers are asked in turn, each within a time limit, and nothing here waits for them but the question's own task.
//! Read next: `proxy/aliases.rs` (the cores' side).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::config::global::HostResolver;
use crate::limits::{ALIAS_LIFETIME_MAX, ALIAS_WAIT, ALIASES_KNOWN_MAX};
use crate::mailbox::{self, MailboxSender};

/// How long one name server may take.
const SERVER_WAIT: Duration = Duration::from_secs(1);

/// A host without another name is asked for again after this long, as in the reference.
const NO_ALIAS_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// After a failure it is asked for again soon.
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);

/// Bytes of an answer: no name server sends more to somebody who does not say that it may (RFC 1035 4.2.1).
const ANSWER_BYTES: usize = 512;

/// What is known of a host, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// The last name of its chain, if it has one.
    name: Option<String>,
    lifetime: Duration,
}

/// Whom to ask.
#[derive(Clone, Debug)]
struct Servers {
    /// A file as `resolv.conf`: read for each question, so that a change is seen.
    file: Arc<PathBuf>,
    /// Links of a chain that are followed.
    depth: usize,
}

/// The aliases of all hosts.
pub struct Aliases {
    servers: Servers,
    known: HashMap<String, (Option<String>, Instant)>,
    /// Who waits for a host that is being asked for.
    asked: HashMap<String, Vec<MailboxSender>>,
    sender: mpsc::UnboundedSender<(String, Found)>,
    answers: mpsc::UnboundedReceiver<(String, Found)>,
}

impl Aliases {
    pub fn new(options: &HostResolver) -> Self {
        // Holds at most one answer for each question, and cores bound those.
        let (sender, answers) = mpsc::unbounded_channel();
        let file = match &*options.resolv_conf {
            "" => &options.resolv_config,
            written => written,
        };
        Self {
            servers: Servers {
                file: Arc::new(PathBuf::from(file)),
                depth: usize::try_from(options.resolv_depth).unwrap_or_default(),
            },
            known: HashMap::new(),
            asked: HashMap::new(),
            sender,
            answers,
        }
    }

    /// Tells `asker` of this host, as [`mailbox::Message::Alias`], now or once it is known.
    pub fn ask(&mut self, host: String, asker: MailboxSender) {
        let now = Instant::now();
        if let Some((name, until)) = self.known.get(&host)
            && *until > now
        {
            let lifetime = *until - now;
            let name = name.clone();
            tell(&asker, host, Found { name, lifetime });
            return;
        }
        if let Some(waiting) = self.asked.get_mut(&host) {
            waiting.push(asker);
            return;
        }
        self.asked.insert(host.clone(), vec![asker]);
        let (servers, sender) = (self.servers.clone(), self.sender.clone());
        tokio::spawn(async move {
            let found = timeout(ALIAS_WAIT, servers.chain(&host)).await;
            let found = found.unwrap_or_else(|_| Found::nothing());
            let _ = sender.send((host, found));
        });
    }

    /// Waits for the next answer, remembers it and tells who waits. May be cancelled.
    pub async fn answer(&mut self) {
        // We hold a sender ourselves, so the channel cannot end.
        let Some((host, found)) = self.answers.recv().await else {
            return;
        };
        for asker in self.asked.remove(&host).unwrap_or_default() {
            tell(&asker, host.clone(), found.clone());
        }
        let now = Instant::now();
        if self.known.len() >= ALIASES_KNOWN_MAX {
            self.known.retain(|_, (_, until)| *until > now);
        }
        if self.known.len() < ALIASES_KNOWN_MAX {
            self.known.insert(host, (found.name, now + found.lifetime));
        }
    }
}

fn tell(asker: &MailboxSender, host: String, found: Found) {
    let Found { name, lifetime } = found;
    // A full mailbox, or a core that is gone: nobody waits longer than its time limit.
    let _ = asker.send(mailbox::Message::Alias {
        host,
        name,
        lifetime,
    });
}

impl Found {
    /// Nobody could be asked, or nobody answered.
    fn nothing() -> Self {
        Self {
            name: None,
            lifetime: FAILURE_LIFETIME,
        }
    }
}

impl Servers {
    /// Follows the chain of `host` to its end, or as far as is allowed.
    async fn chain(&self, host: &str) -> Found {
        let text = match tokio::task::spawn_blocking({
            let file = Arc::clone(&self.file);
            move || std::fs::read_to_string(&*file)
        })
        .await
        {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                debug!("hostResolver: {}: {error}", self.file.display());
                return Found::nothing();
            }
            Err(_) => return Found::nothing(),
        };
        let servers = name_servers(&text);
        let mut found = Found {
            name: None,
            lifetime: NO_ALIAS_LIFETIME,
        };
        for link in 0..self.depth {
            let name = found.name.as_deref().unwrap_or(host);
            match cname(name, &servers).await {
                Ok(Some((target, lifetime))) => {
                    if link == 0 {
                        found.lifetime = lifetime.min(ALIAS_LIFETIME_MAX);
                    }
                    found.name = Some(target);
                }
                Ok(None) => break,
                Err(error) => {
                    debug!("hostResolver: {name}: {error}");
                    found.lifetime = found.lifetime.min(FAILURE_LIFETIME);
                    break;
                }
            }
        }
        found
    }
}

/// The addresses after `nameserver`. A port may follow, which `resolv.conf` does not know.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        let written = words.next()?;
        let address = written
            .parse::<IpAddr>()
            .map(|address| SocketAddr::new(address, 53));
        address.or_else(|_| written.parse()).ok()
    };
    text.lines().filter_map(server).collect()
}

/// The name that `name` stands for, and how long that is good. The first server that answers is believed.
async fn cname(name: &str, servers: &[SocketAddr]) -> io::Result<Option<(String, Duration)>> {
    let mut last = io::Error::other("no name server is known");
    for server in servers {
        match timeout(SERVER_WAIT, ask(name, *server)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

async fn ask(name: &str, server: SocketAddr) -> io::Result<Option<(String, Duration)>> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0)).await?;
    // Only packets of this server are received; with the port, the number is what others would have to guess.
    socket.connect(server).await?;
    let question = question(name)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no name"))?;
    socket
        .send(&question.to_vec().map_err(io::Error::other)?)
        .await?;
    let mut answer = [0; ANSWER_BYTES];
    loop {
        let count = socket.recv(&mut answer).await?;
        match read(&answer[..count], &question) {
            Some(Ok(found)) => return Ok(found),
            Some(Err(code)) => {
                return Err(io::Error::other(format!("the name server answers {code}")));
            }
            // Not the answer to this question.
            None => {}
        }
    }
}

/// The question for an alias, with a number that cannot be guessed. `None` if the text is no name.
fn question(name: &str) -> Option<Message> {
    // Hosts have no escapes, which names in text may.
    if name.contains('\\') {
        return None;
    }
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    if name.is_root() {
        return None;
    }
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::CNAME));
    Some(question)
}

/// What an answer to the question says, or the code of its refusal. `None` if it is not the answer to it.
fn read(
    packet: &[u8],
    question: &Message,
) -> Option<Result<Option<(String, Duration)>, ResponseCode>> {
    let answer = Message::from_vec(packet).ok()?;
    if answer.id != question.id
        || answer.message_type != MessageType::Response
        || answer.queries != question.queries
    {
        return None;
    }
    match answer.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Some(Ok(None)),
        code => return Some(Err(code)),
    }
    let asked = &question.queries.first()?.name;
    let alias = answer.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *asked && record.dns_class == DNSClass::IN => {
            Some((&target.0, record.ttl))
        }
        _ => None,
    });
    let Some((target, seconds)) = alias else {
        return Some(Ok(None));
    };
    let lifetime = Duration::from_secs(seconds.into());
    Some(Ok(Some((host(target)?, lifetime))))
}

/// A name as hosts are written. `None` for the root, and for what no host is called.
fn host(name: &Name) -> Option<String> {
    let is_host = |label: &[u8]| {
        label
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b'.')
    };
    if name.is_root() || !name.iter().all(is_host) {
        return None;
    }
    let labels = name
        .iter()
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase());
    Some(labels.collect::<Vec<String>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Message {
        question("a.test").expect("a name")
    }

    /// An answer to a question, with these records behind it, byte by byte as a server could send them.
    fn packet(question: &Message, code: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut packet = question.to_vec().expect("short");
        packet[2] = 0x81;
        packet[3] = 0x80 | code;
        packet[7] = u8::try_from(records.len()).expect("few");
        packet.extend(records.concat());
        packet
    }

    /// A record of this type and data, of the name that was asked for.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend(data);
        record
    }

    const CNAME: u16 = 5;

    #[test]
    fn answers_are_read() {
        let question = asked();
        let check = |packet: &[u8], expected: Option<Result<Option<&str>, ResponseCode>>| {
            let found = read(packet, &question);
            let name = found.map(|found| found.map(|found| found.map(|(name, _)| name)));
            let expected = expected.map(|found| found.map(|name| name.map(str::to_owned)));
            assert_eq!(name, expected, "{packet:02x?}");
        };
        let packet = |code, records: &[&[u8]]| packet(&question, code, records);
        let alias = record(CNAME, b"\x04ReAl\xc0\x0e");
        check(&packet(0, &[]), Some(Ok(None)));
        check(&packet(3, &[]), Some(Ok(None)));
        check(&packet(2, &[]), Some(Err(ResponseCode::ServFail)));
        check(&packet(0, &[&alias]), Some(Ok(Some("real.test"))));
        check(
            &packet(0, &[&record(1, &[10, 0, 0, 1]), &alias]),
            Some(Ok(Some("real.test"))),
        );
        // Whatever case the server repeats the name in.
        let mut shouted = packet(0, &[&alias]);
        shouted[13] = b'A';
        check(&shouted, Some(Ok(Some("real.test"))));
        // Of another name, of another question, with another number; a question itself.
        let mut other = record(CNAME, b"\x01x\0");
        other.splice(..2, b"\x01b\0".iter().copied());
        check(&packet(0, &[&other]), Some(Ok(None)));
        let mut another = super::question("b.test").expect("a name");
        another.metadata.id = question.id;
        assert_eq!(read(&packet(0, &[&alias]), &another), None);
        let mut later = question.clone();
        later.metadata.id ^= 1;
        assert_eq!(read(&packet(0, &[&alias]), &later), None);
        check(&question.to_vec().expect("short"), None);
    }

    #[test]
    fn nonsense_is_no_answer_and_ends() {
        let question = asked();
        for data in [
            &b"\xc0\x24"[..], // To itself or further on.
            b"\xff\xff",
            b"\xc0\x20", // Into the lifetime, which reads as the root.
            b"\x40a\0",  // A kind of label that there is not.
            b"\x3fshort",
            b"\x03a.b\0", // A dot or a space within a label.
            b"\x03a b\0",
            b"\0",
            b"",
        ] {
            let whole = packet(&question, 0, &[&record(CNAME, data)]);
            assert!(read(&whole, &question).is_none(), "{data:02x?}");
        }
        let whole = packet(&question, 0, &[&record(CNAME, b"\x04real\xc0\x0e")]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &question).is_none(), "{length}");
        }
    }

    #[test]
    fn only_names_are_asked_for() {
        assert!(question("a.test.").is_some());
        for name in ["", ".", "a..b", "a\\046b", &"x".repeat(64)] {
            assert!(question(name).is_none(), "{name}");
        }
    }

    #[test]
    fn name_servers_may_have_ports() {
        let text = "# comment\nsearch x\nnameserver 10.0.0.1\n nameserver ::1 # local\nnameserver 127.0.0.1:5353\nnameserver x\n";
        let found: Vec<String> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353"]);
    }
}
