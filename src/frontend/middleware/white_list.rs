//! Who may pass, by address. Spec frontends 4.
//!
//! Owns the networks as sorted, disjoint ranges: a look costs the logarithm of their number. Never allocates.
//! With `useXForwardedFor` any client that reaches us can write itself in: that is the option's meaning, and only a
//! proxy in front of us that cleans the field makes it safe.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Answer, Context, Verdict};
use crate::http::{FieldId, Head, syntax};

/// The addresses that may pass.
#[derive(Clone, Debug)]
pub struct WhiteList {
    /// First and last address of each range.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
    use_x_forwarded_for: bool,
}

impl WhiteList {
    /// A network of IPv4-mapped addresses is the IPv4 network it maps.
    pub fn new(networks: impl IntoIterator<Item = IpNet>, use_x_forwarded_for: bool) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (
                network.network().to_canonical(),
                network.broadcast().to_canonical(),
            ) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push((u32::from(first), u32::from(last)));
                }
                _ => v6.push((number(network.network()), number(network.broadcast()))),
            }
        }
        // `::/0` and the like hold the mapped addresses too.
        const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);
        if v6
            .iter()
            .any(|range| range.0 <= MAPPED.0 && MAPPED.1 <= range.1)
        {
            v4.push((0, u32::MAX));
        }
        Self {
            v4: merge(v4),
            v6: merge(v6),
            use_x_forwarded_for,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => is_within(&self.v6, u128::from(address)),
        }
    }

    pub(super) fn on_request(&self, head: &Head, context: Context) -> Verdict {
        if self.lets_in(head, context.peer) {
            Verdict::Pass
        } else {
            Verdict::Answer(Answer::text(403, "Forbidden"))
        }
    }

    fn lets_in(&self, head: &Head, peer: IpAddr) -> bool {
        if self.use_x_forwarded_for {
            for entry in head
                .values(FieldId::XForwardedFor)
                .flat_map(|line| line.split(|&byte| byte == b','))
            {
                match address(entry) {
                    Some(address) if self.contains(address) => return true,
                    Some(_) => {}
                    // What cannot be read before anything matched refuses the request, as in the reference.
                    None => return false,
                }
            }
        }
        self.contains(peer)
    }
}

fn number(address: IpAddr) -> u128 {
    u128::from(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

/// The address of an entry of `X-Forwarded-For`: alone, or with a port, which does not matter.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(syntax::trim(entry)).ok()?;
    if let Ok(address) = entry.parse() {
        return Some(address);
    }
    let (host, _port) = entry.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(host) => host
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
            .map(IpAddr::V6),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// Sorted, with ranges that overlap joined, so that at most one can hold an address.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

fn is_within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let at = ranges.partition_point(|range| range.0 <= address);
    at > 0 && address <= ranges[at - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(networks: &str, use_x_forwarded_for: bool) -> WhiteList {
        let networks = networks.split(' ').map(|text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .expect("a network")
        });
        WhiteList::new(networks, use_x_forwarded_for)
    }

    #[track_caller]
    fn check(networks: &str, peer: &str, expected: bool) {
        let peer = peer.parse().expect("an address");
        assert_eq!(
            list(networks, false).lets_in(&Head::default(), peer),
            expected,
            "{peer} in {networks}"
        );
    }

    #[test]
    fn the_peer_is_in_a_network_or_is_an_address() {
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "9.255.255.255", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("::1", "::1", true);
        check("fe80::/10", "febf::1", true);
        check("fe80::/10", "fec0::1", false);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        check("10.0.0.0/8", "::ffff:10.1.1.1", true);
        check("::ffff:10.0.0.0/104", "10.1.1.1", true);
        check("::ffff:10.0.0.0/104", "11.1.1.1", false);
        check("::ffff:10.1.1.1", "10.1.1.1", true);
        check("::/0", "10.1.1.1", true);
    }

    #[test]
    fn networks_may_overlap_and_come_in_any_order() {
        let networks = "10.2.0.0/16 192.168.0.0/24 10.0.0.0/8 10.0.0.0/9 192.168.1.0/24";
        check(networks, "10.2.3.4", true);
        check(networks, "10.200.3.4", true);
        check(networks, "192.168.0.255", true);
        check(networks, "192.168.1.255", true);
        check(networks, "192.168.2.0", false);
        check(networks, "172.16.0.1", false);
    }

    #[track_caller]
    fn check_forwarded(lines: &[&str], peer: &str, expected: bool) {
        let mut head = Head::default();
        for line in lines {
            head.push(b"X-Forwarded-For", line.as_bytes());
        }
        let list = list("10.0.0.0/8 2001:db8::/32", true);
        let peer = peer.parse().expect("an address");
        assert_eq!(list.lets_in(&head, peer), expected, "{lines:?} from {peer}");
    }

    #[test]
    fn any_entry_of_x_forwarded_for_lets_in_if_asked_for() {
        check_forwarded(&[], "10.1.1.1", true);
        check_forwarded(&[], "1.1.1.1", false);
        check_forwarded(&["10.1.1.1"], "1.1.1.1", true);
        check_forwarded(&["2.2.2.2, 10.1.1.1"], "1.1.1.1", true);
        check_forwarded(&["2.2.2.2", "3.3.3.3,10.1.1.1"], "1.1.1.1", true);
        check_forwarded(&["2.2.2.2"], "10.1.1.1", true);
        check_forwarded(&["10.1.1.1:80"], "1.1.1.1", true);
        check_forwarded(&["[2001:db8::1]:80"], "1.1.1.1", true);
        check_forwarded(&["2001:db8::1"], "1.1.1.1", true);
        check_forwarded(&["junk, 10.1.1.1"], "1.1.1.1", false);
        check_forwarded(&["10.1.1.1, junk"], "1.1.1.1", true);
        check_forwarded(&["junk"], "10.1.1.1", false);
        check_forwarded(&[""], "10.1.1.1", false);
        check_forwarded(&["2.2.2.2,"], "10.1.1.1", false);
        check_forwarded(&["[10.1.1.1"], "10.1.1.1", false);
        check_forwarded(&["\u{e9}"], "10.1.1.1", false);
    }

    #[test]
    fn x_forwarded_for_counts_for_nothing_unless_asked_for() {
        let mut head = Head::default();
        head.push(b"X-Forwarded-For", b"10.1.1.1");
        let peer = "1.1.1.1".parse().expect("an address");
        assert!(!list("10.0.0.0/8", false).lets_in(&head, peer));
    }

    #[test]
    fn who_may_not_pass_is_told_so() {
        let context = Context::of("1.1.1.1");
        let verdict = list("10.0.0.0/8", false).on_request(&Head::default(), context);
        let Verdict::Answer(answer) = verdict else {
            panic!("refused");
        };
        assert_eq!((answer.status, &*answer.body), (403, &b"Forbidden"[..]));
    }
}
