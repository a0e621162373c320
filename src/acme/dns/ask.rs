//! Questions to name servers: which zone a name is in, who answers for it, and whether they all show a record.
//!
//! Owns the resolvers, the operator's or the system's, and the way a question travels: over UDP, over TCP where the answer
//! was cut (RFC 1035 4.2). An answer counts only if it comes from who was asked and repeats the question.
//! Never remembers an answer. Read next: `update.rs`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::limits::{ACME_DNS_TIMEOUT, ACME_DNS_TRIES};

/// Where name servers listen.
pub(super) const PORT: u16 = 53;

/// Asks name servers.
#[derive(Debug)]
pub(super) struct Asker {
    /// `host` or `host:port`. Empty: the system's, which may be others the next time.
    resolvers: Vec<String>,
    /// Where the name servers of a zone listen.
    port: u16,
}

impl Asker {
    pub(super) fn new(resolvers: &[String]) -> Self {
        let resolvers = resolvers.iter().map(|written| written.trim().to_owned());
        Self {
            resolvers: resolvers.filter(|written| !written.is_empty()).collect(),
            port: PORT,
        }
    }

    /// Returns if every name server of the zone shows this text at this name.
    ///
    /// # Errors
    /// A sentence: who does not, or what cannot be found out.
    pub(super) async fn shown(&self, name: &str, text: &str) -> Result<(), String> {
        let name = parsed(name)?;
        let resolvers = self.addresses().await?;
        let zone = zone_of(&resolvers, &name).await?;
        let servers = ask_any(&resolvers, &zone, RecordType::NS).await?;
        let servers: Vec<Name> = datas(&servers)
            .filter_map(|data| match data {
                RData::NS(server) => Some(server.0.clone()),
                _ => None,
            })
            .collect();
        if servers.is_empty() {
            return Err(format!("{zone} has no name servers"));
        }
        for server in servers {
            let addresses = self.addresses_of(&resolvers, &server).await?;
            let answer = ask_any(&addresses, &name, RecordType::TXT).await;
            let answer = answer.map_err(|why| format!("{server}: {why}"))?;
            let is_shown = datas(&answer).any(|data| match data {
                RData::TXT(found) => found.txt_data.concat() == text.as_bytes(),
                _ => false,
            });
            if !is_shown {
                return Err(format!("{server} does not show it"));
            }
        }
        Ok(())
    }

    async fn addresses_of(
        &self,
        resolvers: &[SocketAddr],
        server: &Name,
    ) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = ask_any(resolvers, server, kind).await?;
            addresses.extend(datas(&answer).filter_map(|data| match data {
                RData::A(address) => Some(SocketAddr::new(IpAddr::V4(address.0), self.port)),
                RData::AAAA(address) => Some(SocketAddr::new(IpAddr::V6(address.0), self.port)),
                _ => None,
            }));
        }
        if addresses.is_empty() {
            return Err(format!("{server} has no address"));
        }
        Ok(addresses)
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        if self.resolvers.is_empty() {
            let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            return Ok(of_system(&text));
        }
        let mut addresses = Vec::new();
        for written in &self.resolvers {
            addresses.extend(resolved(written).await?);
        }
        Ok(addresses)
    }
}

/// The addresses of `host` or `host:port`.
pub(super) async fn resolved(written: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = written.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, PORT)]);
    }
    let has_port = written
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port {
        written.to_owned()
    } else {
        format!("{written}:{PORT}")
    };
    match lookup_host(&with_port).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(format!("name server {written}: {error}")),
    }
}

/// The name servers of `/etc/resolv.conf`; without any, this machine (resolv.conf(5)).
fn of_system(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address = words.next().filter(|_| is_server)?.parse().ok()?;
        Some(SocketAddr::new(address, PORT))
    });
    let servers: Vec<SocketAddr> = servers.collect();
    if servers.is_empty() {
        return vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))];
    }
    servers
}

/// The name of the zone that a name is in: who knows it says it, or with the denial of the name who answers for that.
pub(super) async fn zone_of(servers: &[SocketAddr], name: &Name) -> Result<Name, String> {
    let mut asked = name.clone();
    while !asked.is_root() {
        let answer = ask_any(servers, &asked, RecordType::SOA).await?;
        let records = answer.answers.iter().chain(&answer.authorities);
        let mut zones = records
            .filter(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name));
        if let Some(zone) = zones.next() {
            return Ok(zone.name.clone());
        }
        asked = asked.base_name();
    }
    Err(format!("no zone was found for {name}"))
}

fn datas(answer: &Message) -> impl Iterator<Item = &RData> {
    answer.answers.iter().map(|record| &record.data)
}

pub(super) fn parsed(name: &str) -> Result<Name, String> {
    Name::from_ascii(name).map_err(|error| format!("{name}: {error}"))
}

/// The answer of the first server that gives one.
async fn ask_any(servers: &[SocketAddr], name: &Name, kind: RecordType) -> Result<Message, String> {
    let mut why = "no name server is known".to_owned();
    for server in servers {
        match ask(*server, name, kind).await {
            Ok(answer) => return Ok(answer),
            Err(error) => why = format!("{server}: {error}"),
        }
    }
    Err(why)
}

async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let is_answer = |bytes: &[u8]| {
        let message = Message::from_vec(bytes).ok()?;
        let repeats = message.id == question.id && message.queries == question.queries;
        repeats.then_some(message)
    };
    let mut answer = None;
    for _ in 0..ACME_DNS_TRIES {
        match over_udp(server, &bytes, &is_answer).await {
            Ok(message) => {
                answer = Some(message);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
    }
    let mut answer = answer.ok_or(io::ErrorKind::TimedOut)?;
    if answer.truncation {
        let bytes = over_tcp(server, &bytes).await?;
        answer = is_answer(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    }
    match answer.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(io::Error::other(format!("it answers {code}"))),
    }
}

async fn over_udp<T>(
    server: SocketAddr,
    question: &[u8],
    is_answer: &impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let exchange = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(question).await?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Some(answer) = buffer.get(..length).and_then(is_answer) {
                return Ok(answer);
            }
        }
    };
    timeout(ACME_DNS_TIMEOUT, exchange).await?
}

/// One message there and one back, each behind its length (RFC 1035 4.2.2).
pub(super) async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(question);
        stream.write_all(&message).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    timeout(ACME_DNS_TIMEOUT, exchange).await?
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::OpCode;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, NS, SOA, TXT};
    use tokio::net::TcpListener;

    use super::*;

    /// A name server for `a.test` that shows these texts, over TCP only if they are to be cut.
    async fn server(texts: &'static [&'static str], is_cut: bool) -> SocketAddr {
        let (socket, listener, address) = loop {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            let address = socket.local_addr().expect("bound");
            // Somebody may have the same port already.
            if let Ok(listener) = TcpListener::bind(address).await {
                break (socket, listener, address);
            }
        };
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                // Noise first: an answer to another question.
                let noise = Message::response(0, OpCode::Query).to_vec().expect("short");
                socket.send_to(&noise, from).await.expect("loopback");
                let reply = answer(&buffer[..length], texts, is_cut);
                socket.send_to(&reply, from).await.expect("loopback");
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let length = stream.read_u16().await.expect("a length");
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.expect("a question");
                let reply = answer(&question, texts, false);
                let length = u16::try_from(reply.len()).expect("short");
                stream.write_u16(length).await.expect("loopback");
                stream.write_all(&reply).await.expect("loopback");
            }
        });
        address
    }

    fn answer(question: &[u8], texts: &[&str], is_cut: bool) -> Vec<u8> {
        let question = Message::from_vec(question).expect("a question");
        let query = question.queries.first().expect("a query").clone();
        let mut reply = Message::response(question.id, OpCode::Query);
        reply.add_query(query.clone());
        reply.metadata.truncation = is_cut;
        let zone = parsed("a.test.").expect("a name");
        let server = parsed("ns.a.test.").expect("a name");
        let data = |data| Record::from_rdata(query.name.clone(), 60, data);
        match query.query_type {
            RecordType::TXT if !is_cut => {
                for text in texts {
                    reply.add_answer(data(RData::TXT(TXT::new(vec![(*text).to_owned()]))));
                }
            }
            RecordType::NS => {
                reply.add_answer(data(RData::NS(NS(server))));
            }
            RecordType::A => {
                reply.add_answer(data(RData::A(A(Ipv4Addr::LOCALHOST))));
            }
            RecordType::SOA => {
                let soa = SOA::new(server, zone.clone(), 1, 60, 60, 60, 60);
                reply.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
            }
            _ => {}
        }
        reply.to_vec().expect("short")
    }

    async fn shown(texts: &'static [&'static str], is_cut: bool) -> Result<(), String> {
        let address = server(texts, is_cut).await;
        let asker = Asker {
            resolvers: vec![address.to_string()],
            port: address.port(),
        };
        asker.shown("_acme-challenge.b.a.test.", "digest").await
    }

    #[tokio::test]
    async fn a_record_counts_when_the_name_servers_of_its_zone_show_it() {
        assert_eq!(shown(&["other", "digest"], false).await, Ok(()));
        assert_eq!(shown(&["digest"], true).await, Ok(()));
        let why = "ns.a.test. does not show it".to_owned();
        assert_eq!(shown(&["other"], false).await, Err(why));
    }

    #[test]
    fn the_servers_of_the_system_are_read() {
        let text =
            "# nameserver 9.9.9.9\nsearch test\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\n";
        let found: Vec<String> = of_system(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(of_system(""), ["127.0.0.1:53".parse().expect("an address")]);
    }

    #[tokio::test]
    async fn a_server_needs_no_port() {
        let one = |text: &str| {
            let text = text.to_owned();
            async move { resolved(&text).await.expect("an address")[0].to_string() }
        };
        assert_eq!(one("192.0.2.1").await, "192.0.2.1:53");
        assert_eq!(one("192.0.2.1:5353").await, "192.0.2.1:5353");
        assert_eq!(one("2001:db8::1").await, "[2001:db8::1]:53");
        assert_eq!(one("[2001:db8::1]:54").await, "[2001:db8::1]:54");
    }
}
