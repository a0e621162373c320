//! Consistent hashing: the same client, or the same thing asked for, comes to the same server.
//!
//! Owns the ring: points on a circle of 2^32 places, many for each server. A request belongs to the next point after its
//! hash. A server that comes or goes changes only whose points those are: the others keep their requests. Points are made
//! from a server's address alone, so all cores, all processes and all machines with one configuration agree.
//! Never keeps a request. Read next: `balancer.rs`.

use std::net::IpAddr;

use super::ServerId;
use super::key::Source;
use super::sticky::value_of;
use crate::http::{FieldId, Head};

/// Points of a server of average weight. The shares of servers differ by about one part in the root of this.
const POINTS: u64 = 160;

/// What of a request decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    Source(Source),
    /// The cookie of this name.
    Cookie(Box<[u8]>),
}

impl HashBy {
    /// Reads `client.ip`, `request.host`, `request.header.<Name>` or `request.cookie.<Name>`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("request.cookie.") {
            Some("") => None,
            Some(name) => Some(Self::Cookie(name.as_bytes().into())),
            None => Source::parse(text).map(Self::Source),
        }
    }

    /// The place of a request on the ring; `None` if it has not what decides.
    pub fn place(&self, head: &Head, client: IpAddr) -> Option<u32> {
        match (self, client) {
            (Self::Source(Source::ClientIp), IpAddr::V4(address)) => Some(place(&address.octets())),
            (Self::Source(Source::ClientIp), IpAddr::V6(address)) => Some(place(&address.octets())),
            (Self::Source(Source::Host), _) => Some(head.authority())
                .filter(|host| !host.is_empty())
                .map(place),
            (Self::Source(Source::Field(name)), _) => head.values_named(name).next().map(place),
            (Self::Cookie(name), _) => head
                .values(FieldId::Cookie)
                .find_map(|line| value_of(line, name))
                .map(place),
        }
    }
}

/// The points of all servers.
#[derive(Debug)]
pub struct Ring {
    /// In the order of their places.
    points: Box<[Point]>,
    /// For each part of the circle the first point in it or after it.
    starts: Box<[u32]>,
    /// A place shifted so far is its part.
    shift: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u32,
    server: u32,
}

impl Ring {
    /// Servers in their order: what each is called everywhere, and its weight.
    pub fn new(servers: &[(String, u32)]) -> Self {
        let total: u64 = servers.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut points = Vec::new();
        for ((name, weight), server) in servers.iter().zip(0..) {
            let share = u128::from(POINTS * servers.len() as u64) * u128::from(*weight);
            let count = share.checked_div(u128::from(total)).unwrap_or(0);
            let least = u128::from(*weight > 0);
            for number in 0..count.max(least) {
                points.push(Point {
                    place: place(format!("{name} {number}").as_bytes()),
                    server,
                });
            }
        }
        points.sort_unstable();
        let bits = points.len().max(2).next_power_of_two().ilog2();
        let shift = u32::BITS - bits;
        let starts = (0..1_u64 << bits).map(|part| {
            let first = points.partition_point(|point| u64::from(point.place >> shift) < part);
            u32::try_from(first).expect("points are bounded by the servers")
        });
        Self {
            starts: starts.collect(),
            points: points.into(),
            shift,
        }
    }

    /// The first server from this place on that will do. `None` if none does.
    pub fn find(&self, place: u32, mut will_do: impl FnMut(ServerId) -> bool) -> Option<ServerId> {
        let mut start = self.starts[(place >> self.shift) as usize] as usize;
        while self
            .points
            .get(start)
            .is_some_and(|point| point.place < place)
        {
            start += 1;
        }
        let (before, after) = self.points.split_at(start);
        // Neighbours are often points of one server: it is asked once for them.
        let mut last = None;
        after
            .iter()
            .chain(before)
            .map(|point| ServerId(point.server))
            .find(|id| last.replace(*id) != Some(*id) && will_do(*id))
    }
}

/// The hash of a text: FNV-1a, and the final mixing of MurmurHash3. The same everywhere and for ever; a client that wants
/// a certain server can find a text for it, as it could by trying.
fn place(text: &[u8]) -> u32 {
    let mut hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 32) as u32
}
