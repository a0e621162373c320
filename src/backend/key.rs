//! What requests are counted by: whose they are, or what they ask for.
//!
//! Owns the way from a request to a number of 64 bits, by a hash that nobody outside can foresee: so a client cannot
//! choose texts that meet in one place of a table. Never keeps a text.
//! Read next: `limit.rs`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;

use crate::http::Head;

/// The part of a request that names its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The peer's address.
    ClientIp,
    /// The authority as sent, with its port and case.
    Host,
    /// The first value of the field of this name. Requests without it share a key.
    Field(Box<[u8]>),
}

impl Source {
    /// Reads `client.ip`, `request.host` or `request.header.<Name>`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "client.ip" => Some(Self::ClientIp),
            "request.host" => Some(Self::Host),
            _ => text
                .strip_prefix("request.header.")
                .filter(|name| !name.is_empty())
                .map(|name| Self::Field(name.as_bytes().into())),
        }
    }
}

/// Gives keys to requests, the same on all cores.
#[derive(Clone, Debug)]
pub struct Keys {
    source: Source,
    hasher: RandomState,
}

impl Keys {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            hasher: RandomState::new(),
        }
    }

    /// The key of a request. Two texts have one key once in 2^64 pairs.
    pub fn key(&self, head: &Head, peer: IpAddr) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match (&self.source, peer) {
            (Source::ClientIp, IpAddr::V4(address)) => hasher.write(&address.octets()),
            (Source::ClientIp, IpAddr::V6(address)) => hasher.write(&address.octets()),
            (Source::Host, _) => hasher.write(head.authority()),
            (Source::Field(name), _) => {
                hasher.write(head.values_named(name).next().unwrap_or_default());
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<Source>) {
        assert_eq!(Source::parse(text), expected, "{text}");
    }

    #[test]
    fn sources() {
        check("client.ip", Some(Source::ClientIp));
        check("Client.IP", None);
        check("request.host", Some(Source::Host));
        check(
            "request.header.X-Key",
            Some(Source::Field(b"X-Key".as_slice().into())),
        );
        check("request.header.", None);
        check("request.header", None);
        check("client.port", None);
        check("", None);
    }

    #[test]
    fn equal_requests_have_equal_keys() {
        let head = |authority: &[u8], field: &[u8]| {
            let mut head = Head::default();
            head.set_authority(authority);
            head.push(b"x-key", field);
            head
        };
        let requests = [
            (head(b"a", b"1"), "1.1.1.1"),
            (head(b"b", b"1"), "::1"),
            (head(b"a", b"2"), "::1"),
        ];
        let pairs = |source: Source| {
            let keys = Keys::new(source);
            let keys = requests
                .each_ref()
                .map(|(head, peer)| keys.key(head, peer.parse().expect("an address")));
            [(0, 1), (0, 2), (1, 2)].map(|(a, b)| keys[a] == keys[b])
        };
        assert_eq!(pairs(Source::ClientIp), [false, false, true]);
        assert_eq!(pairs(Source::Host), [false, true, false]);
        assert_eq!(
            pairs(Source::Field(b"X-KEY".as_slice().into())),
            [true, false, false]
        );
        assert_eq!(
            pairs(Source::Field(b"none".as_slice().into())),
            [true, true, true]
        );
    }
}
